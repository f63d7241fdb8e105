// The command as a process: it ends with its frontend, and its last words come through when it is told to end.

import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { expect, onTestFinished, test } from 'vitest';
import { tiny } from '../helpers.ts';
import { expectOracle, promptOf } from './helpers.ts';
import { MirrorFrontend } from './mirror-frontend.ts';

const bin = fileURLToPath(new URL('../../../bin/routed-experts.mjs', import.meta.url));

type Engine = Readonly<{ child: ChildProcess; exitCode: Promise<number | null>; said: () => string }>;

function startProcess(...flags: readonly string[]): Engine {
  const child = spawn(process.execPath, [bin, 'engine', '--device', 'cpu', '--model', 'tiny', ...flags], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let text = '';
  child.stdout.on('data', (part: Buffer) => (text += part.toString()));
  child.stderr.on('data', (part: Buffer) => (text += part.toString()));
  onTestFinished(() => void child.kill('SIGKILL'));
  const exitCode = once(child, 'close').then(([code]) => code as number | null);
  return { child, exitCode, said: () => text };
}

test('SIGTERM aborts what runs and tells the frontend; a frontend that ends ends the engine', async () => {
  const frontends = await Promise.all([MirrorFrontend.open(), MirrorFrontend.open()]);
  onTestFinished(() => frontends.forEach((frontend) => frontend.close()));
  const [told, ending] = frontends.map(({ address }) =>
    startProcess('--connect', address, '--max-model-len', '512', '--vocab-size', '91'),
  ) as [Engine, Engine];
  await Promise.all(frontends.map((frontend) => frontend.attach()));
  const [first, second] = frontends;
  const prompt = promptOf(40).map((token) => token % 91);
  const received = await first.generate({ id: 'r', prompt, sampling: { ignore_eos: true, max_tokens: 5 } });
  expectOracle(received, prompt, 0, { ...tiny, vocabSize: 91 });
  const endless = await first.add({ id: 'e', prompt, sampling: { ignore_eos: true, max_tokens: 400 } });
  await first.until(() => endless.tokens.length > 0);
  told.child.kill('SIGTERM');
  await first.until(() => first.isDead);
  expect(endless.finishReasons).toEqual([2]);
  expect(await told.exitCode).toBe(0);
  expect(told.said()).toMatch(/routed-experts engine: tiny on .* for the vLLM frontend at tcp:/);

  second.close();
  expect(await ending.exitCode).toBe(0);
  expect(ending.said()).toMatch(/the frontend is gone/);
});

test('an address that is none, and one where nothing answers, end the command with exit code 2', async () => {
  const wrong = startProcess('--connect', 'http://127.0.0.1:1');
  const nobody = startProcess('--connect', 'tcp://127.0.0.1:1', '--handshake-timeout', '0.2');
  expect(await wrong.exitCode).toBe(2);
  expect(wrong.said()).toMatch(/Give the address of a frontend/);
  expect(await nobody.exitCode).toBe(2);
  expect(nobody.said()).toMatch(/error: no vLLM frontend at tcp:\/\/127.0.0.1:1: none answered within 0.2 s/);
});
