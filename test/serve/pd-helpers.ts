/**
 * What tests of prefill and decode in two servers share: the two requests that a proxy makes, and an oracle that knows
 * whose forward pass a row is of.
 */

import type { ChildProcess } from 'node:child_process';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { expect, onTestFinished } from 'vitest';
import { Oracle } from '../../src/kernels/model/oracle.ts';
import { scramble } from '../../src/kernels/model/mix/mix.ts';
import { Router } from '../../src/kernels/model/route/route.ts';
import type { KvExchangeOptions } from '../../src/serve/kv/kv-exchange.ts';
import { Proxy } from '../../src/serve/proxy/proxy.ts';
import type { ProxyConfig } from '../../src/serve/proxy/proxy-config.ts';
import { defaultLimits } from '../../src/serve/serve-config.ts';
import type { Server } from '../../src/serve/server.ts';
import type { Answer, DecodedRows } from './helpers.ts';
import { closeAfterTest, post, smallKv, startServer, tiny } from './helpers.ts';

export type Params = Record<string, unknown>;
export type HasUrl = Pick<Server, 'url'>;

/** What vLLM's toy proxy sends to the engine that prefills. */
export const keep = {
  do_remote_decode: true,
  do_remote_prefill: false,
  remote_engine_id: null,
  remote_block_ids: null,
  remote_host: null,
  remote_port: null,
};

export const withRows = {
  ignore_eos: true,
  return_token_ids: true,
  vllm_xargs: { return_routed_experts: true },
};

/** Prompts of different seeds share no prefix that counts. */
export function promptOf(seed: number, length: number): number[] {
  return Array.from({ length }, (_, i) => (scramble(seed * 65_536 + i) >>> 0) % tiny.vocabSize);
}

type Overrides = NonNullable<Parameters<typeof startServer>[0]>;

/** A server that shares KV, closed with its test. */
export async function startKvServer(
  overrides: Partial<KvExchangeOptions> = {},
  host: NonNullable<Overrides['host']> = {},
  engine: NonNullable<Overrides['engine']> = {},
): Promise<Server> {
  return closeAfterTest(await startServer({ host: { kv: { ...smallKv, ...overrides }, ...host }, engine }));
}

export async function prefill(url: HasUrl, prompt: readonly number[], fields: object = {}): Promise<Params> {
  const body = { prompt, max_tokens: 1, ...withRows, ...fields, kv_transfer_params: keep };
  const answer = await post(url, '/v1/completions', body);
  expect(answer.status).toBe(200);
  return (answer.body as unknown as { kv_transfer_params: Params }).kv_transfer_params;
}

export function decode(url: HasUrl, prompt: readonly number[], params: Params, fields: object = {}): Promise<Answer> {
  const body = { prompt, max_tokens: 6, ...withRows, ...fields, kv_transfer_params: params };
  return post(url, '/v1/completions', body);
}

/** Whose keys stand in the KV of each position, from the front; the last epoch goes on for ever. */
export type Epochs = readonly (readonly [epoch: number, numTokens: number])[];

export function epochAt(epochs: Epochs, position: number): number {
  let end = 0;
  for (const [epoch, numTokens] of epochs) {
    end += numTokens;
    if (position < end) return epoch;
  }
  return epochs.at(-1)![0];
}

/** Rows and next tokens of a pass over KV of such keys. */
export function epochOracle(
  tokens: readonly number[],
  epochs: Epochs,
): Readonly<{ rows: number[][]; nextTokens: number[] }> {
  const sequence = new Oracle(new Router(tiny));
  const rows: number[][] = [];
  const nextTokens: number[] = [];
  for (const [position, token] of tokens.entries()) {
    nextTokens.push(sequence.push(token, epochAt(epochs, position)));
    const row = new Uint32Array(tiny.numLayers * tiny.topK);
    sequence.row(row);
    rows.push([...row]);
  }
  return { rows, nextTokens };
}

/**
 * The engine of epoch `own` decoded over KV of `epochs`: rows of its own keys are of its own pass over that KV, rows of
 * another's keys of a pass of that engine alone, and so each row tells whose it is (L9). Positions in `missing` are not
 * looked at.
 */
export function expectEpochs(
  prompt: readonly number[],
  output: readonly number[],
  { shape, ids }: DecodedRows,
  own: number,
  epochs: Epochs,
  missing: readonly (readonly [number, number])[] = [],
): void {
  const tokens = [...prompt, ...output];
  const here = epochOracle(tokens, epochs);
  expect(output).toEqual(output.map((_, i) => here.nextTokens[prompt.length - 1 + i]));
  expect(shape).toEqual([tokens.length - 1, tiny.numLayers, tiny.topK]);
  const width = tiny.numLayers * tiny.topK;
  const alone = new Map(epochs.map(([epoch]) => [epoch, epochOracle(tokens, [[epoch, 0]])]));
  for (let position = 0; position < tokens.length - 1; position++) {
    if (missing.some(([from, to]) => position >= from && position < to)) continue;
    const epoch = epochAt(epochs, position);
    const expected = (epoch === own ? here : alone.get(epoch)!).rows[position];
    expect([position, ids.slice(position * width, (position + 1) * width)]).toEqual([position, expected]);
  }
}

type ProxyOverrides = Partial<Omit<ProxyConfig, 'limits'>> & { limits?: Partial<ProxyConfig['limits']> };

export function proxyConfig(
  prefillers: readonly HasUrl[],
  decoders: readonly HasUrl[],
  { limits, ...overrides }: ProxyOverrides = {},
): ProxyConfig {
  return {
    prefill: prefillers.map(({ url }) => url),
    decode: decoders.map(({ url }) => url),
    rows: 'with-kv',
    host: '127.0.0.1',
    port: 0,
    prefillMs: 20_000,
    decodeMs: 20_000,
    healthMs: 50,
    logLevel: 'silent',
    log: { write: () => {} },
    ...overrides,
    limits: { ...defaultLimits, ...limits },
  };
}

/** A proxy before servers, closed with its test. */
export async function startProxy(...args: Parameters<typeof proxyConfig>): Promise<Proxy> {
  const proxy = await Proxy.start(proxyConfig(...args));
  onTestFinished(() => proxy.close(0));
  return proxy;
}

export type Command = Readonly<{ url: string; child: ChildProcess; exit: Promise<unknown[]> }>;

/** A command that serves, in a process of its own, killed with its test. */
export async function startCommand(name: 'serve' | 'proxy', ...flags: string[]): Promise<Command> {
  const bin = fileURLToPath(new URL('../../bin/routed-experts.mjs', import.meta.url));
  const tinyServer = ['--device', 'cpu', '--model', 'tiny', '--block-size', '4', '--max-model-len', '8192'];
  const args = [bin, name, ...(name === 'serve' ? tinyServer : []), '--port', '0', '--log-level', 'error', ...flags];
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  onTestFinished(() => void child.kill('SIGKILL'));
  const exit = once(child, 'exit');
  const [line] = (await once(createInterface(child.stdout), 'line')) as [string];
  return { url: /http:\S+/.exec(line)![0], child, exit };
}
