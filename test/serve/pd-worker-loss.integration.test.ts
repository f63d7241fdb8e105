// L8 under prefill and decode in two servers: a worker lost at any moment, in either server, of any rank, under either
// load-failure policy, ends no process and loses no request: every answer is a 200 with the oracle's tokens and rows.
//
// `npm run worker-loss` loses workers 200 times; by default it is a small sample. A failure prints the seed:
// WORKER_LOSS_SEED draws the same moments.

import { setTimeout as pause } from 'node:timers/promises';
import { expect, onTestFinished, test } from 'vitest';
import type { DeviceKind, WorkerFault } from '../../src/contract/config.ts';
import { prepareAdapters } from '../../src/kernels/device/open-device.ts';
import type { Server } from '../../src/serve/server.ts';
import { isLoss } from '../../src/worker/pipeline/loss.ts';
import { random } from '../../src/workload/random.ts';
import {
  closeAfterTest,
  decodeNpy,
  eventsOf,
  expectNothingLeft,
  expectOracle,
  smallKv,
  startServer,
  wire,
} from './helpers.ts';
import { promptOf, startProxy, withRows } from './pd-helpers.ts';

const SEED = Number(process.env['WORKER_LOSS_SEED'] ?? 1);
/** Of all cases together. */
const NUM_MOMENTS = Number(process.env['WORKER_LOSS_MOMENTS'] ?? 24);
const DEVICES = (process.env['WORKER_LOSS_DEVICES'] ?? 'cpu').split(',') as DeviceKind[];
const POLICIES = ['recompute', 'fail'] as const;
const NUM_RANKS = 2;
const NUM_CLIENTS = 4;
/** For one loss to come and to be mended, on a machine that has other work. */
const RESTART_CAP_MS = 60_000;

await prepareAdapters();

type Role = 'prefill' | 'decode';

async function startOf(role: Role, device: DeviceKind, onLoadFailure: 'recompute' | 'fail'): Promise<Server> {
  const host = { kv: { ...smallKv, role, onLoadFailure }, device, numRanks: NUM_RANKS, maxRestarts: 1000 };
  return closeAfterTest(await startServer({ host }));
}

/** Clients of the proxy, each with one request after the other, until they are told to stop. */
class Load {
  numAnswers = 0;
  #numActive = 0;
  #isPaused = false;
  #isStopped = false;
  readonly #url: string;
  readonly #clients: Promise<unknown>;

  constructor(url: string, seed: number) {
    this.#url = url;
    this.#clients = Promise.all(Array.from({ length: NUM_CLIENTS }, (_, i) => this.#run(seed, i)));
  }

  /** Rejects with what the first client found wrong. */
  async stop(): Promise<void> {
    this.#isStopped = true;
    await this.#clients;
  }

  /** Rejects with what a client found wrong meanwhile. */
  async during<T>(work: Promise<T>): Promise<T> {
    return Promise.race([work, this.#clients.then(() => work)]);
  }

  async whileIdle(work: () => Promise<void>): Promise<void> {
    this.#isPaused = true;
    await this.during(expect.poll(() => this.#numActive, { interval: 2, timeout: RESTART_CAP_MS }).toBe(0));
    await work();
    this.#isPaused = false;
  }

  async #run(seed: number, client: number): Promise<void> {
    const draw = random(seed, `client ${client}`);
    for (let i = 0; !this.#isStopped; i++) {
      if (this.#isPaused) {
        await pause(2);
        continue;
      }
      this.#numActive++;
      const prompt = promptOf(seed * 1000 + client * 100_000 + i, 2 + draw.below(60));
      await (draw.below(3) === 0 ? this.#stream(prompt, 2 + draw.below(12)) : this.#ask(prompt, 2 + draw.below(12)));
      this.numAnswers++;
      this.#numActive--;
    }
  }

  async #ask(prompt: number[], maxTokens: number): Promise<void> {
    const response = await this.#post({ prompt, max_tokens: maxTokens, ...withRows });
    const text = await response.text();
    if (response.status !== 200) throw new Error(`${response.status}: ${text}`);
    const choice = wire(JSON.parse(text)).choices[0]!;
    expect([choice.finish_reason, choice.token_ids.length]).toEqual(['length', maxTokens]);
    expectOracle(prompt, choice.token_ids, decodeNpy(choice.routed_experts));
  }

  async #stream(prompt: number[], maxTokens: number): Promise<void> {
    const response = await this.#post({ prompt, max_tokens: maxTokens, ...withRows, stream: true });
    const events = eventsOf(await response.text());
    expect(events.at(-1)).toBe('[DONE]');
    const bodies = events.slice(0, -1).map((event) => wire(JSON.parse(event)));
    expect(bodies.map(({ error }) => error).filter((error) => error !== undefined)).toEqual([]);
    const tokens = bodies.flatMap(({ choices }) => choices[0]!.token_ids);
    expect(tokens.length).toBe(maxTokens);
    expectOracle(prompt, tokens, decodeNpy(bodies.at(-1)!.choices[0]!.routed_experts));
  }

  #post(body: object): Promise<Response> {
    const headers = { 'content-type': 'application/json' };
    return fetch(`${this.#url}/v1/completions`, { method: 'POST', headers, body: JSON.stringify(body) });
  }
}

type Moment = Readonly<{ role: Role; isIdle: boolean; waitMs: number; fault: WorkerFault }>;

/** `exit-thread` is three of four losses: it leaves nothing behind that could be asked. */
function drawMoment(draw: ReturnType<typeof random>): Moment {
  const kinds = ['exit-thread', 'exit-thread', 'exit-thread', 'exit-thread', 'lose-device', 'throw', 'reject'] as const;
  const whens = ['step', 'kv', 'kv', 'time', 'time', 'idle'] as const;
  const role = draw.below(2) === 0 ? 'prefill' : 'decode';
  const kind = kinds[draw.below(kinds.length)]!;
  const rank = draw.below(NUM_RANKS);
  const when = whens[draw.below(whens.length)]!;
  const waitMs = draw.below(40);
  const count = draw.below(6);
  const moment =
    when === 'step'
      ? { afterSteps: count }
      : when === 'kv'
        ? { afterKvMoves: count % 3 }
        : { afterMs: when === 'idle' ? 0 : draw.below(30) };
  // Only rank 0 hands out KV.
  const isRead = when === 'kv' && role === 'prefill';
  return { role, isIdle: when === 'idle', waitMs, fault: { kind, rank: isRead ? 0 : rank, ...moment } };
}

for (const [d, device] of DEVICES.entries()) {
  for (const [p, policy] of POLICIES.entries()) {
    const numMoments = Math.ceil(NUM_MOMENTS / (DEVICES.length * POLICIES.length));
    const title = `${numMoments} losses on ${device} under --kv-load-failure ${policy}: no request is lost`;
    test(title, { timeout: numMoments * 10_000 + 60_000 }, async () => {
      const seed = SEED * 100 + d * 10 + p;
      const draw = random(seed, 'moments');
      const servers = {
        prefill: await startOf('prefill', device, policy),
        decode: await startOf('decode', device, policy),
      };
      const proxy = await startProxy([servers.prefill], [servers.decode], { prefillMs: 120_000, decodeMs: 120_000 });
      const load = new Load(proxy.url, seed);
      let last = '';
      onTestFinished(({ task }) => {
        if (task.result?.state === 'fail') console.error(`WORKER_LOSS_SEED=${SEED}; the last loss: ${last}`);
      });
      for (let i = 0; i < numMoments; i++) {
        const { role, isIdle, waitMs, fault } = drawMoment(draw);
        const { host } = servers[role];
        last = `${role} ${JSON.stringify(fault)}${isIdle ? ', idle' : ''}`;
        const lose = async (): Promise<void> => {
          const before = host.engine.workers.numRestarts;
          // A thread that ends at once can take its reply with it.
          await host.engine.injectFault(fault).catch((error: unknown) => expect(isLoss(error)).toBe(true));
          await load.during(
            expect
              .poll(() => host.engine.workers.numRestarts, { interval: 2, timeout: RESTART_CAP_MS })
              .toBe(before + 1),
          );
        };
        await load.during(pause(waitMs));
        if (isIdle) await load.whileIdle(lose);
        else await lose();
      }
      await load.stop();
      for (const role of ['prefill', 'decode'] as const) {
        expect(servers[role].host.engine.deathReason).toBeNull();
        await expectNothingLeft(servers[role]);
      }
      const { kv } = servers.decode.host;
      const loaded = `${kv!.counts.loads} loads, ${kv!.counts.failedLoads} failed`;
      const restarts = servers.prefill.host.engine.workers.numRestarts + servers.decode.host.engine.workers.numRestarts;
      console.log(`${device}, ${policy}: ${restarts} losses, ${load.numAnswers} answers, all right; ${loaded}`);
      expect(restarts).toBe(numMoments);
    });
  }
}
