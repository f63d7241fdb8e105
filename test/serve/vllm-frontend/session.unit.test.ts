/**
 * The session against an engine that does nothing but what it is told: under any order of messages, steps and losses
 * each request gets one last output, each call one reply, and a paused engine no new request.
 */

import fc from 'fast-check';
import { expect, test } from 'vitest';
import type { EngineCoreOutput, FinishReason } from '../../../src/contract/engine-core-output.ts';
import { RoutedExpertsError } from '../../../src/contract/errors.ts';
import { EngineCore, type EngineStats } from '../../../src/engine/engine-core.ts';
import { FrontendSession } from '../../../src/serve/vllm-frontend/frontend-session.ts';
import { madeUpLogprobs } from '../../../src/serve/vllm-frontend/made-up-logprobs.ts';
import type { SessionEngine } from '../../../src/serve/vllm-frontend/session-engine.ts';
import type { AddRequest } from '../../../src/serve/vllm-frontend/wire/add-request.ts';
import { smallEngine } from '../helpers.ts';
import { addArray, pack, unpack } from './mirror-messages.ts';

const NUM_CLIENTS = 2;

/** Runs a step at a time, each of which brings every request a token; the third token is the last. */
class StepEngine implements SessionEngine {
  readonly requests: Map<string, number> = new Map();
  readonly #stats: EngineStats = new EngineCore(smallEngine, null).stats();
  numInFlight = 0;
  isPaused = false;
  isRefusing = false;
  numResets = 0;
  session: FrontendSession | null = null;

  add({ request }: AddRequest): void {
    if (this.isRefusing) throw RoutedExpertsError.of('EMPTY_PROMPT', request.requestId);
    this.requests.set(request.requestId, 0);
  }

  abort(ids: readonly string[]): void {
    for (const id of ids) if (this.requests.delete(id)) this.#put(id, [], 'abort');
  }

  pause(): void {
    this.isPaused = true;
  }

  resume(): void {
    this.isPaused = false;
  }

  resetPrefixCache(resetRunning: boolean): boolean {
    const isReset = resetRunning || this.requests.size === 0;
    if (isReset) this.numResets++;
    return isReset;
  }

  stats(): EngineStats {
    return { ...this.#stats, numStepsInFlight: this.numInFlight, numRunning: this.requests.size };
  }

  begin(): void {
    if (this.isPaused || this.requests.size === 0 || this.numInFlight === 2) return;
    this.numInFlight++;
    this.session!.onStepBegun(1);
  }

  end(): void {
    if (this.numInFlight === 0) return;
    this.numInFlight--;
    for (const [id, count] of this.requests) {
      const isLast = count === 2;
      if (isLast) this.requests.delete(id);
      else this.requests.set(id, count + 1);
      this.#put(id, [count], isLast ? 'length' : null);
    }
    this.session!.onStepEnded(2);
  }

  lose(): void {
    this.numInFlight = 0;
    this.session!.onWorkersLost();
  }

  #put(requestId: string, newTokenIds: number[], finishReason: FinishReason | null): void {
    const output: EngineCoreOutput = {
      requestId,
      newTokenIds,
      finishReason,
      stopReason: null,
      prefill: null,
      routedExperts: null,
    };
    this.session!.onOutput(output, null, 3);
  }
}

type Table = Readonly<{ engine: StepEngine; session: FrontendSession; world: World }>;

/** What the frontend has seen, and is owed. */
class World {
  readonly finals: Map<string, number[]> = new Map();
  readonly replies: Map<bigint, string | null> = new Map();
  readonly results: Map<bigint, unknown> = new Map();
  readonly calls: Map<bigint, number> = new Map();
  readonly owners: Map<string, number> = new Map();
  readonly dropped: Set<string> = new Set();
  readonly gone: Set<number> = new Set();
  readonly coordinator: unknown[][] = [];
  numMessages = 0;

  take(client: number, frames: readonly Uint8Array[]): void {
    expect(this.gone.has(client)).toBe(false);
    this.numMessages++;
    const [, outputs, , , utility] = unpack(frames[0]!) as [0, unknown[][], unknown, number, unknown[] | null];
    if (utility !== null) {
      const [callId, failure] = utility as [bigint, string | null];
      expect(this.calls.get(callId)).toBe(client);
      expect(this.replies.has(callId)).toBe(false);
      this.replies.set(callId, failure);
      if (failure === null) this.results.set(callId, (utility[2] as [null, unknown])[1]);
    }
    for (const output of outputs) {
      const [id, , , , , reason] = output as [string, ...unknown[]];
      expect(this.owners.get(id)).toBe(client);
      if (!this.dropped.has(id)) expect(this.finals.has(id), `${id} behind its end`).toBe(false);
      if (reason !== null) this.finals.set(id, [...(this.finals.get(id) ?? []), reason as number]);
    }
  }
}

function table(hasCoordinator = true): Table {
  const engine = new StepEngine();
  const world = new World();
  const session = new FrontendSession(
    {
      engineIndex: 0,
      numExperts: 8,
      numWorkers: 1,
      blockSize: 4,
      weightVersion: 'default',
      logprobs: () => madeUpLogprobs(97, 0),
      withLayers: (rows) => rows,
      rules: {
        vocabSize: 97,
        maxModelLen: 64,
        numClients: NUM_CLIENTS,
        rowsFor: 'all',
        transfer: null,
        maxMessageBytes: 4096,
      },
    },
    {
      engine,
      send: (client, frames) => world.take(client, frames),
      tellCoordinator: hasCoordinator ? (frames) => world.coordinator.push(unpack(frames[0]!) as unknown[]) : null,
      warn: () => {},
    },
  );
  engine.session = session;
  return { engine, session, world };
}

const flushAll = ({ session }: Table): void => {
  for (let i = 0; i < 1000 && session.flush(4); i++);
};

const say = ({ session }: Table, client: number, type: number, body: unknown): void =>
  session.onMessage(client, [Uint8Array.of(type), pack(body)], 1);

type Command = (table: Table) => void;

const client = fc.nat(NUM_CLIENTS - 1);
const ids = ['a', 'b', 'c', 'd', 'e', 'f'];

const METHODS: readonly (readonly [string, readonly unknown[]])[] = [
  ['pause_scheduler', ['abort', true]],
  ['pause_scheduler', ['wait', false]],
  ['pause_scheduler', ['keep', true]],
  ['sleep', [1, 'keep']],
  ['sleep', []],
  ['wake_up', [['weights']]],
  ['wake_up', [null]],
  ['resume_scheduler', []],
  ['resume_scheduler', []],
  ['reset_prefix_cache', [false, false]],
  ['no_such_method', []],
  ['sleep', [7]],
];

let nextCall = 2n ** 63n;

const commands = fc.oneof(
  fc.tuple(fc.constantFrom(...ids), client).map(([id, from]): Command => (on) => {
    const { world } = on;
    if (world.gone.has(from)) return;
    flushAll(on);
    // An id is used once; a second ADD of it is the same frame again.
    const owner = world.owners.get(id) ?? from;
    if (world.gone.has(owner) || (world.owners.has(id) && world.finals.has(id))) return;
    if (world.dropped.has(id)) return;
    world.owners.set(id, owner);
    const before = on.engine.requests.size;
    const wasPaused = isPaused(on);
    say(on, owner, 0, addArray({ id, prompt: [1, 2], client: owner }));
    if (wasPaused) expect(on.engine.requests.size).toBe(before);
  }),
  fc.constantFrom(...ids).map((id): Command => (on) => {
    const owner = on.world.owners.get(id);
    if (owner !== undefined) on.world.dropped.add(id);
    if (!on.world.gone.has(owner ?? 0)) say(on, owner ?? 0, 1, [id]);
  }),
  fc.tuple(fc.constantFrom(...METHODS), client).map(([[method, args], from]): Command => (on) => {
    if (on.world.gone.has(from)) return;
    const callId = nextCall++;
    on.world.calls.set(callId, from);
    say(on, from, 3, [from, callId, method, args]);
  }),
  fc.tuple(fc.nat(60), client).map(([length, from]): Command => ({ session, world }) => {
    if (world.gone.has(from)) return;
    const id = `cut ${from}`;
    const whole = pack(addArray({ id, prompt: [1, 2], client: from }));
    world.owners.set(id, from);
    world.dropped.add(id);
    session.onMessage(from, [Uint8Array.of(0), whole.subarray(0, Math.min(length, whole.length - 1))], 1);
  }),
  fc.constant<Command>(({ engine }) => engine.begin()),
  fc.constant<Command>(({ engine }) => engine.end()),
  fc.constant<Command>(({ engine }) => engine.lose()),
  fc.constant<Command>((on) => void on.session.flush(4)),
  fc.constant<Command>(({ session }) => session.onCoordinator([Uint8Array.of(2), pack([3, 1])])),
  fc.boolean().map(
    (is): Command =>
      ({ engine }) =>
        void (engine.isRefusing = is),
  ),
);

function isPaused(on: Table): boolean {
  const callId = nextCall++;
  const alive = [0, 1].find((each) => !on.world.gone.has(each));
  if (alive === undefined) return false;
  on.world.calls.set(callId, alive);
  say(on, alive, 3, [alive, callId, 'is_scheduler_paused', []]);
  flushAll(on);
  return on.world.results.get(callId) === true;
}

function settle(on: Table): void {
  on.engine.isRefusing = false;
  for (const alive of [0, 1].filter((each) => !on.world.gone.has(each))) {
    for (const method of ['wake_up', 'resume_scheduler']) {
      const callId = nextCall++;
      on.world.calls.set(callId, alive);
      say(on, alive, 3, [alive, callId, method, []]);
    }
  }
  for (let i = 0; i < 8; i++) {
    on.engine.begin();
    on.engine.end();
  }
  flushAll(on);
}

function expectPaid({ world, engine, session }: Table): void {
  for (const [id, owner] of world.owners) {
    if (world.dropped.has(id) || world.gone.has(owner)) continue;
    expect(world.finals.get(id), `the end of ${id}`).toHaveLength(1);
  }
  for (const [callId, from] of world.calls) if (!world.gone.has(from)) expect(world.replies.has(callId)).toBe(true);
  expect(engine.requests.size).toBe(0);
  expect(engine.isPaused).toBe(false);
  expect(session.numRequests).toBe(0);
}

test('whatever comes in whatever order, each request gets one end and each call one reply', () => {
  fc.assert(
    fc.property(fc.array(commands, { maxLength: 40 }), fc.option(client), fc.nat(40), (list, goes, at) => {
      const on = table();
      for (const [i, run] of list.entries()) {
        if (i === at && goes !== null) {
          on.world.gone.add(goes);
          on.session.onClientGone(goes);
          for (const [id, owner] of on.world.owners) if (owner === goes) expect(on.engine.requests.has(id)).toBe(false);
        }
        run(on);
      }
      settle(on);
      expectPaid(on);
    }),
    { numRuns: 150 },
  );
});

test('a session that stops pays what it owes, and refuses what comes later', () => {
  fc.assert(
    fc.property(fc.array(commands, { maxLength: 25 }), (list) => {
      const on = table();
      for (const run of list) run(on);
      on.session.stop();
      on.engine.resume();
      say(on, 0, 3, [0, 77n + 2n ** 63n, 'is_sleeping', []]);
      on.world.calls.set(77n + 2n ** 63n, 0);
      on.world.owners.set('late', 0);
      say(on, 0, 0, addArray({ id: 'late', prompt: [1] }));
      flushAll(on);
      expectPaid(on);
      expect(on.world.replies.get(77n + 2n ** 63n)).toBe('Server shutting down');
      expect(on.world.finals.get('late')).toEqual([2]);
    }),
    { numRuns: 50 },
  );
});

test('a pause is complete when no step is in flight, and cut short by a resume', () => {
  const on = table(false);
  say(on, 0, 0, addArray({ id: 'a', prompt: [1, 2] }));
  on.world.owners.set('a', 0);
  on.engine.begin();
  on.engine.begin();
  const pause = (callId: bigint, mode: string): void => {
    on.world.calls.set(callId, 0);
    say(on, 0, 3, [0, callId, 'pause_scheduler', [mode, true]]);
    flushAll(on);
  };
  pause(2n ** 63n + 1n, 'keep');
  on.engine.end();
  flushAll(on);
  expect(on.world.replies.size).toBe(0);
  on.engine.end();
  flushAll(on);
  expect(on.world.replies.get(2n ** 63n + 1n)).toBeNull();
  expect(on.engine.numResets).toBe(1);
  on.engine.begin();
  expect(on.engine.numInFlight).toBe(0);

  pause(2n ** 63n + 2n, 'wait');
  expect(on.world.replies.size).toBe(1);
  const resume = 2n ** 63n + 3n;
  on.world.calls.set(resume, 0);
  say(on, 0, 3, [0, resume, 'resume_scheduler', []]);
  flushAll(on);
  expect(on.world.replies.get(2n ** 63n + 2n)).toMatch(/resumed before it had paused/);
  expect(on.world.replies.get(resume)).toBeNull();
});

test('of a wave that is over an idle engine tells the coordinator; counts are sent when they change', () => {
  const on = table();
  on.session.onCoordinator([Uint8Array.of(2), pack([4, 1])]);
  on.world.owners.set('a', 0);
  say(on, 0, 0, addArray({ id: 'a', prompt: [1], at: { 12: 5 } }));
  for (let i = 0; i < 4; i++) {
    on.engine.begin();
    on.engine.end();
  }
  const before = on.world.coordinator.length;
  on.session.onCoordinator([Uint8Array.of(2), pack([9, 0])]);
  on.world.owners.set('b', 0);
  say(on, 0, 0, addArray({ id: 'b', prompt: [1], at: { 12: 4 } }));
  const later = on.world.coordinator.slice(before);
  expect(later[0]![7]).toBe(5);
  expect(later[1]![2]).toMatchObject({ num_running_reqs: 1, current_wave: 5 });
  expect(later).toHaveLength(2);
});
