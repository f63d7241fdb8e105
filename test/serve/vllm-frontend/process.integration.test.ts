// The command: as a process, whose last words come through when it is told to end; and what it says of wrong addresses.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { expect, onTestFinished, test } from 'vitest';
import { runHere } from '../../cli/run-cli.ts';
import { tiny } from '../helpers.ts';
import { expectOracle, promptOf } from './helpers.ts';
import { MirrorFrontend } from './mirror-frontend.ts';

const bin = fileURLToPath(new URL('../../../bin/routed-experts.mjs', import.meta.url));
const small = ['engine', '--device', 'cpu', '--model', 'tiny', '--max-model-len', '512'];

test('SIGTERM aborts what runs, tells the frontend, and ends the process with exit code 0', async () => {
  const frontend = await MirrorFrontend.open();
  const flags = [...small, '--connect', frontend.address, '--vocab-size', '91'];
  const child = spawn(process.execPath, [bin, ...flags], { stdio: ['ignore', 'pipe', 'inherit'] });
  onTestFinished(() => {
    child.kill('SIGKILL');
    frontend.close();
  });
  const exit = once(child, 'close');
  const line = once(child.stdout, 'data');
  await frontend.attach();
  expect(String(await line)).toMatch(/^routed-experts engine: tiny on .*, for the vLLM frontend at tcp:/);
  const prompt = promptOf(40).map((token) => token % 91);
  const received = await frontend.generate({ id: 'r', prompt, sampling: { ignore_eos: true, max_tokens: 5 } });
  expectOracle(received, prompt, 0, { ...tiny, vocabSize: 91 });
  const endless = await frontend.add({ id: 'e', prompt, sampling: { ignore_eos: true, max_tokens: 400 } });
  await frontend.until(() => endless.tokens.length > 0);
  child.kill('SIGTERM');
  await frontend.until(() => frontend.isDead);
  expect(endless.finishReasons).toEqual([2]);
  expect(await exit).toEqual([0, null]);
});

test('an address that is none, and one where nothing answers, end the command with exit code 2', async () => {
  const wrong = await runHere(...small, '--connect', 'http://127.0.0.1:1');
  expect([wrong.code, wrong.stderr]).toEqual([2, expect.stringMatching(/Give the address of a frontend/)]);
  const nobody = await runHere(...small, '--connect', 'tcp://127.0.0.1:1', '--handshake-timeout', '0.2');
  const words = /error: no vLLM frontend at tcp:\/\/127.0.0.1:1: none answered within 0.2 s/;
  expect([nobody.code, nobody.stderr]).toEqual([2, expect.stringMatching(words)]);
  const splice = await runHere(...small, '--role', 'decode', '--pd-rows', 'splice');
  expect([splice.code, splice.stderr]).toEqual([2, expect.stringMatching(/--pd-rows is splice; give with-kv/)]);
});
