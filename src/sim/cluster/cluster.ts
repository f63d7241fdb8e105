/**
 * A cluster in virtual time: engines, their ranks, and what they share. Knows no clock but its own, in ticks of 1 µs.
 *
 *     clients ─▶ ClusterEngine × M ─steps─▶ VirtualRank, TimingRank × N ─▶ VirtualLockstep: sizes, passes, watchdog
 *                 │ World: core, ledger, laws   │ pipeline, worker half, device
 *                 └──────── TimedLock ──────────┘
 */

import { RoutedExpertsError } from '../../contract/errors.ts';
import { EventLog } from '../event-log.ts';
import { installCopyMeter } from '../laws/copy-meter.ts';
import type { LawName, Violation } from '../laws/violation.ts';
import { verdict } from '../run-scenario.ts';
import { EventHeap, Phase, type Clock } from '../virtual/event-heap.ts';
import { routerOf } from '../virtual/sim-kernels.ts';
import { ClusterEngine } from './cluster-engine.ts';
import type { EngineCounts } from './engine-counts.ts';
import { checkCluster, gridOf, type ClusterOptions } from './cluster-options.ts';
import type { LockFile } from './timed-lock.ts';
import { VirtualLockstep, type ClusterPasses } from './virtual-lockstep.ts';

/** The group stood still: after so many µs of virtual time, with the report of what waits for what. */
export type ClusterStall = Readonly<{ at: number; report: string }>;

export type NodeTraffic = Readonly<{
  deviceToHost: number;
  hostToEngine: number;
  toClients: number;
  /** The experts' all-to-all with other nodes. */
  exchange: number;
}>;

export type ClusterResult = Readonly<{
  violation: Violation | null;
  /** The engine whose law is broken. */
  brokenEngine: number | null;
  stall: ClusterStall | null;
  /** How often each law was broken that the design gives up. */
  declared: ReadonlyMap<LawName, number>;
  counts: EngineCounts & Readonly<{ sent: number }>;
  /** µs of virtual time over which tokens and passes were counted. */
  measured: number;
  /** Of each rank, behind the warm-up. */
  passes: readonly ClusterPasses[];
  nodes: readonly NodeTraffic[];
  numPasses: number;
  numEvents: number;
  /** Of the event logs of all engines and of the passes of the group. */
  hash: string;
  lines: readonly string[];
}>;

/** More events than any cluster within the limits makes: a run that reaches them never ends. */
const MOST_EVENTS = 4e9;

export class VirtualCluster {
  readonly #options: ClusterOptions;
  readonly #heap: EventHeap = new EventHeap();
  readonly #log: EventLog;
  readonly #logs: readonly EventLog[];
  readonly #lockstep: VirtualLockstep;
  readonly #engines: ClusterEngine[] = [];
  #numPasses = 0;
  #numEvents = 0;
  #stall: ClusterStall | null = null;
  #violation: Violation | null = null;
  /** The engine whose event runs. */
  #current = 0;
  #isOver = false;

  /** `tracedEngine`: whose events are told in lines. Throws BAD_VALUE. */
  constructor(options: ClusterOptions, { tracedEngine = -1 }: Readonly<{ tracedEngine?: number }> = {}) {
    checkCluster(options);
    const { numEngines, numNodes, model, collectiveTimeout, warmUp, duration, faults } = options;
    const clock = this.#heap;
    this.#options = options;
    this.#log = new EventLog(false);
    this.#logs = Array.from({ length: numEngines }, (_, engine) => new EventLog(engine === tracedEngine));
    this.#lockstep = new VirtualLockstep({
      grid: gridOf(options),
      clock,
      collectiveTimeout,
      warmUp,
      onReleased: ({ pass, lastRank }) => this.#onReleased(pass, lastRank),
      onRank: (rank) => (this.#current = Math.floor(rank / options.tensorParallel)),
      onStall: (report) => this.#onStall(report),
    });
    const nodeFiles = Array.from({ length: numNodes }, (): LockFile => ({ freeAt: 0 }));
    const files: LockFile[][] = nodeFiles.map(() => []);
    const router = routerOf(model);
    for (const [engine, log] of this.#logs.entries()) {
      const node = Math.floor((engine * numNodes) / numEngines);
      const lockFile = options.lock === 'node' ? nodeFiles[node]! : { freeAt: 0 };
      files[node]!.push(lockFile);
      this.#engines.push(
        new ClusterEngine({
          engine,
          node,
          cluster: options,
          router,
          clock: this.#clockOf(engine),
          log,
          lockstep: this.#lockstep,
          lockFile,
          announce: () => this.#announce(engine),
        }),
      );
    }
    for (const engine of this.#engines) {
      const own = this.#clockOf(engine.engine);
      own.plan(0, Phase.client, () => engine.start());
      if (options.served === null) own.plan(duration, Phase.client, () => engine.stop());
    }
    for (const fault of faults) {
      if (fault.kind === 'dead-rank') clock.plan(fault.at, Phase.client, () => this.#kill(fault.rank));
      if (fault.kind === 'held-lock') {
        clock.plan(fault.at, Phase.client, () => {
          for (const file of files[fault.node]!) file.freeAt = Math.max(file.freeAt, clock.now + fault.duration);
        });
      }
    }
  }

  /** µs of virtual time. */
  get now(): number {
    return this.#heap.now;
  }

  /** Runs so many events, or to the end; returns whether there are more. Never throws for what the tested code does. */
  run(numEvents: number): boolean {
    const uninstall = this.#options.tested.mutation.install?.();
    const uninstallMeter = installCopyMeter();
    try {
      for (let i = 0; i < numEvents && !this.#isOver; i += 1) {
        this.#numEvents += 1;
        if (this.#numEvents > MOST_EVENTS) {
          this.#engines[0]!.judge.stall('L8', `${MOST_EVENTS} events did not bring the run to its end`);
        }
        if (this.#heap.runNext()) continue;
        this.#isOver = true;
        this.#forEach((engine) => engine.checkEnd());
      }
    } catch (error) {
      this.#isOver = true;
      this.#violation = verdict(error, this.#engines[this.#current]!.judge);
    } finally {
      uninstallMeter();
      uninstall?.();
    }
    return !this.#isOver;
  }

  /** Behind the end. */
  result(): ClusterResult {
    const { numNodes, duration, warmUp, served } = this.#options;
    const counts = this.#engines.map((engine) => ({ ...engine.counts, sent: engine.numSent }));
    const total = counts.reduce((a, b) => addUp(a, b));
    const due = served === null ? duration : Math.max(...this.#engines.map(({ lastOutputAt }) => lastOutputAt));
    const end = this.#stall === null ? due : Math.min(due, this.#stall.at);
    const declared = new Map<LawName, number>();
    for (const { judge } of this.#engines) {
      for (const [law, count] of judge.declared) declared.set(law, (declared.get(law) ?? 0) + count);
    }
    const log = new EventLog(false);
    for (const { hash } of [this.#log, ...this.#logs]) {
      log.word(Number.parseInt(hash.slice(0, 8), 16));
      log.word(Number.parseInt(hash.slice(8), 16));
    }
    return {
      violation: this.#violation,
      brokenEngine: this.#violation === null ? null : this.#current,
      stall: this.#stall,
      declared,
      counts: total,
      measured: Math.max(0, end - warmUp),
      passes: this.#lockstep.takePasses(),
      nodes: Array.from({ length: numNodes }, (_, node) => trafficOf(this.#engines.filter((e) => e.node === node))),
      numPasses: this.#numPasses,
      numEvents: this.#numEvents,
      hash: log.hash,
      lines: this.#logs.flatMap(({ lines }) => lines),
    };
  }

  #onReleased(pass: number, lastRank: number): void {
    this.#numPasses += 1;
    this.#log.word(pass);
    this.#log.word(lastRank);
    this.#log.word(this.#heap.now | 0);
    this.#log.word(Math.floor(this.#heap.now / 2 ** 32));
  }

  #onStall(report: string): void {
    const { collectiveTimeout } = this.#options;
    this.#stall = { at: this.#heap.now, report };
    const error = RoutedExpertsError.of('COLLECTIVE_TIMEOUT', collectiveTimeout / 1e3, report);
    this.#forEach((engine) => engine.fail(error));
  }

  /** The others hear of it behind this event. */
  #announce(by: number): void {
    this.#heap.plan(this.#heap.now, Phase.begin, () => {
      this.#forEach((engine) => {
        if (engine.engine !== by) engine.onGroupEvent();
      });
    });
  }

  #kill(rank: number): void {
    const { tensorParallel } = this.#options;
    this.#engines[Math.floor(rank / tensorParallel)]!.killRank(rank % tensorParallel);
  }

  #forEach(run: (engine: ClusterEngine) => void): void {
    for (const engine of this.#engines) {
      this.#current = engine.engine;
      run(engine);
    }
  }

  /** The clock of an engine: whatever breaks in an event that it plans is the engine's. */
  #clockOf(engine: number): Clock {
    const heap = this.#heap;
    return {
      get now() {
        return heap.now;
      },
      plan: (time, phase, run) =>
        heap.plan(time, phase, () => {
          this.#current = engine;
          run();
        }),
    };
  }
}

function addUp<T extends Readonly<Record<string, number>>>(a: T, b: T): T {
  return Object.fromEntries(Object.keys(a).map((key) => [key, a[key]! + b[key]!])) as T;
}

function trafficOf(engines: readonly ClusterEngine[]): NodeTraffic {
  const sum = (of: (engine: ClusterEngine) => number): number => engines.reduce((total, each) => total + of(each), 0);
  return {
    deviceToHost: sum((engine) => engine.deviceToHost),
    hostToEngine: sum((engine) => engine.hostToEngine),
    toClients: sum(({ counts }) => counts.toClients),
    exchange: sum(({ counts }) => counts.exchange),
  };
}
