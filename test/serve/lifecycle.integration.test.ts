// From start to drain: lost workers are started again or the server says that it is dead; SIGTERM lets what runs come
// to its end.

import type { ChildProcess } from 'node:child_process';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { describe, expect, onTestFinished, test, vi } from 'vitest';
import { RoutedExpertsError } from '../../src/contract/errors.ts';
import { prepareAdapters } from '../../src/kernels/device/open-device.ts';
import { ThreadExecutor } from '../../src/worker/thread/thread-executor.ts';
import {
  closeAfterTest,
  decodeNpy,
  eventsOf,
  expectNothingLeft,
  expectOracle,
  post,
  startServer,
  wire,
} from './helpers.ts';

const completions = '/v1/completions';
const prompt = [3, 1, 4, 1, 5, 9, 2, 6];
const asked = {
  prompt,
  max_tokens: 30,
  ignore_eos: true,
  return_token_ids: true,
  vllm_xargs: { return_routed_experts: true },
};

test('on WebGPU: tokens and rows are the oracle’s', async () => {
  await prepareAdapters();
  const server = closeAfterTest(await startServer({ host: { device: 'webgpu' } }));
  const { body } = await post(server, completions, { ...asked, n: 2 });
  for (const choice of body.choices) expectOracle(prompt, choice.token_ids, decodeNpy(choice.routed_experts));
  await expectNothingLeft(server);
});

describe('a lost worker', () => {
  test('is started again: no client notices', async () => {
    const fault = { kind: 'exit-thread', stepId: 8 } as const;
    const server = closeAfterTest(await startServer({ host: { fault, maxRestarts: 1 } }));
    const answers = await Promise.all([1, 2, 3, 4].map((n) => post(server, completions, { ...asked, n })));
    for (const { status, body } of answers) {
      expect(status).toBe(200);
      for (const choice of body.choices) expectOracle(prompt, choice.token_ids, decodeNpy(choice.routed_experts));
    }
    const metrics = await (await fetch(`${server.url}/metrics`)).text();
    expect(metrics).toMatch(/^routed_experts:worker_restarts_total\{.*\} 1$/m);
    expect((await fetch(`${server.url}/health`)).status).toBe(200);
    await expectNothingLeft(server);
  });

  test('that may not be started again: every answer is an error, and health says so', async () => {
    const fault = { kind: 'lose-device', stepId: 8 } as const;
    const server = closeAfterTest(await startServer({ host: { fault, maxRestarts: 0 } }));
    const stream = fetch(server.url + completions, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ ...asked, stream: true }),
    });
    const whole = post(server, completions, asked);
    const events = eventsOf(await (await stream).text());
    expect(events.at(-1)).toBe('[DONE]');
    const error = { code: 'engine_dead', message: expect.stringContaining('the device is gone') as string };
    expect(wire(JSON.parse(events.at(-2)!)).error).toMatchObject(error);
    expect(await whole).toMatchObject({ status: 503, body: { error } });
    expect((await post(server, completions, asked)).body.error.code).toBe('engine_dead');
    expect((await fetch(`${server.url}/health`)).status).toBe(503);
    expect(server.numActive).toBe(0);
  });
});

test('workers that cannot be started again: every answer is an error that says why, and nothing waits', async () => {
  const fault = { kind: 'exit-thread', stepId: 8 } as const;
  const server = closeAfterTest(await startServer({ host: { fault, maxRestarts: 2 } }));
  const start = vi.spyOn(ThreadExecutor, 'start').mockRejectedValue(RoutedExpertsError.of('NO_ADAPTER', ['none']));
  onTestFinished(() => start.mockRestore());
  const answers = await Promise.all([1, 2, 3].map((n) => post(server, completions, { ...asked, n })));
  expect(start).toHaveBeenCalledTimes(2);
  const error = { code: 'engine_dead', message: expect.stringContaining('no WebGPU adapter found') as string };
  for (const answer of answers) expect(answer).toMatchObject({ status: 503, body: { error } });
  expect(server.host.numRequests).toBe(0);
  expect((await fetch(`${server.url}/health`)).status).toBe(503);
});

type Process = Readonly<{ child: ChildProcess; url: string; exit: Promise<unknown[]> }>;

async function startProcess(...flags: string[]): Promise<Process> {
  const bin = fileURLToPath(new URL('../../bin/routed-experts.mjs', import.meta.url));
  const args = [bin, 'serve', '--device', 'cpu', '--model', 'tiny', '--port', '0', '--log-level', 'warn', ...flags];
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  onTestFinished(() => void child.kill('SIGKILL'));
  const exit = once(child, 'exit');
  const [line] = (await once(createInterface(child.stdout), 'line')) as [string];
  return { child, url: /http:\S+/.exec(line)![0], exit };
}

function streamOf(url: string, body: object): Promise<Response> {
  return fetch(url + completions, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ ...body, stream: true }),
  });
}

describe('SIGTERM', () => {
  test('drains: what runs is answered to its end, what comes is refused, and the process ends with 0', async () => {
    const { child, url, exit } = await startProcess();
    const response = await streamOf(url, { ...asked, max_tokens: 600 });
    const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
    let text = (await reader.read()).value!;
    child.kill('SIGTERM');
    await expect.poll(async () => (await fetch(`${url}/health`)).status, { interval: 5 }).toBe(503);
    const refused = await streamOf(url, asked);
    expect(refused.status).toBe(503);
    expect(refused.headers.get('retry-after')).toBe('1');
    for (let part = await reader.read(); !part.done; part = await reader.read()) text += part.value;
    const events = eventsOf(text);
    expect(events.at(-1)).toBe('[DONE]');
    const chunks = events.slice(0, -1).map((event) => wire(JSON.parse(event)).choices[0]!);
    const last = chunks.at(-1)!;
    const tokens = chunks.flatMap((chunk) => chunk.token_ids);
    expect([last.finish_reason, tokens.length]).toEqual(['length', 600]);
    expectOracle(prompt, tokens, decodeNpy(last.routed_experts));
    expect(await exit).toEqual([0, null]);
  });

  test('after the drain’s time aborts what is left: it ends with the rows that it has', async () => {
    const { child, url, exit } = await startProcess('--drain-timeout', '0.05');
    const response = await streamOf(url, { ...asked, max_tokens: 30_000 });
    const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
    let text = (await reader.read()).value!;
    child.kill('SIGTERM');
    for (let part = await reader.read(); !part.done; part = await reader.read()) text += part.value;
    const events = eventsOf(text);
    expect(events.at(-1)).toBe('[DONE]');
    const chunks = events.slice(0, -1).map((event) => wire(JSON.parse(event)).choices[0]!);
    expect(chunks.at(-1)!.finish_reason).toBe('abort');
    const tokens = chunks.flatMap((chunk) => chunk.token_ids);
    expectOracle(prompt, tokens, decodeNpy(chunks.at(-1)!.routed_experts));
    expect(await exit).toEqual([0, null]);
  });
});

test('a port that is taken ends the command with exit code 2 and says so', async () => {
  const server = closeAfterTest(await startServer());
  const bin = fileURLToPath(new URL('../../bin/routed-experts.mjs', import.meta.url));
  const args = [bin, 'serve', '--device', 'cpu', '--model', 'tiny', '--port', new URL(server.url).port];
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'ignore', 'pipe'] });
  let text = '';
  child.stderr.on('data', (part: Buffer) => (text += part.toString()));
  expect(await once(child, 'close')).toEqual([2, null]);
  expect(text).toMatch(/cannot listen on 127\.0\.0\.1:\d+: .*EADDRINUSE/);
});
