/**
 * One data-parallel engine of a cluster: the real engine core under watch, the real batch queue, and ranks of which the
 * first has the real step pipeline and worker half. Its thread stands still while the core computes or waits for the
 * lock. Where `EngineDriver` and `EngineMember` wait for promises, it plans events.
 */

import type { EngineCoreOutput } from '../../contract/engine-core-output.ts';
import type { RoutedExpertsError } from '../../contract/errors.ts';
import type { ModelRunnerOutput } from '../../contract/model-runner-output.ts';
import type { RoutedRows } from '../../contract/routed-rows.ts';
import type { Router } from '../../kernels/model/route/route.ts';
import { gapsThatApply } from '../../capture/designs.ts';
import { rowShape } from '../../capture/row-shape.ts';
import { BatchQueue, type BatchedEngine } from '../../worker/pipeline/batch-queue.ts';
import { DUMMY_STEP } from '../../worker/pipeline/lockstep/activity-board.ts';
import type { EnginePasses } from '../../worker/pipeline/lockstep/engine-passes.ts';
import { DUMMY_ROWS } from '../../worker/pipeline/step-runner.ts';
import { rankDifference } from '../../worker/pipeline/rank-agreement.ts';
import { ALONE } from '../engine-side.ts';
import type { EventLog } from '../event-log.ts';
import type { Flight } from '../flight.ts';
import { EndedRequests } from '../laws/ended-requests.ts';
import { Judge } from '../laws/judge.ts';
import { EngineThread } from '../virtual/engine-thread.ts';
import { Phase, type Clock } from '../virtual/event-heap.ts';
import { VirtualRank, type RankEvents } from '../virtual/virtual-rank.ts';
import { World } from '../world.ts';
import { Clients } from './clients.ts';
import { newCounts, type EngineCounts } from './engine-counts.ts';
import type { ClusterOptions } from './cluster-options.ts';
import { savedRowBytes } from './costs.ts';
import { exchangeBytes } from './exchange.ts';
import { RankTimes } from './rank-times.ts';
import { TimedLock, type LockFile } from './timed-lock.ts';
import { TimingRank, type TimedPass } from './timing-rank.ts';
import { actorOf, type VirtualLockstep } from './virtual-lockstep.ts';
import { worldScenario } from './world-scenario.ts';

export type ClusterEngineOptions = Readonly<{
  engine: number;
  node: number;
  cluster: ClusterOptions;
  router: Router;
  clock: Clock;
  log: EventLog;
  lockstep: VirtualLockstep;
  lockFile: LockFile;
  /** The engine has done something of which the others have to hear. */
  announce: () => void;
}>;

export class ClusterEngine implements BatchedEngine<Flight>, RankEvents {
  readonly engine: number;
  readonly node: number;
  readonly judge: Judge;
  readonly counts: EngineCounts = newCounts();
  readonly #options: ClusterEngineOptions;
  readonly #world: World;
  readonly #lock: TimedLock;
  readonly #queue: BatchQueue<Flight>;
  readonly #thread: EngineThread;
  readonly #passes: EnginePasses;
  readonly #clients: Clients;
  readonly #times: readonly RankTimes[];
  readonly #ranks: readonly VirtualRank[];
  readonly #timingRanks: readonly TimingRank[];
  /** Messages to a rank do not overtake each other. */
  readonly #acceptedAt: number[];
  /** When the steps came that a real rank has not ended, oldest first. */
  readonly #acceptTimes: number[][];
  /** When the last output was taken in. */
  lastOutputAt = 0;
  #isClosed = false;
  #hasDrained = false;
  #dummiesArePlanned = false;
  readonly #bytesPerRow: number;
  #bytesSeen = 0;
  #lockedBytesSeen = 0;

  constructor(options: ClusterEngineOptions) {
    const { engine, node, cluster, router, clock, log, lockstep } = options;
    const { tested, costs, tensorParallel, realRanks, queueDepth } = cluster;
    this.engine = engine;
    this.node = node;
    this.#options = options;
    this.judge = new Judge(gapsThatApply(tested.gaps, { isOffloading: false }));
    this.#bytesPerRow = rowShape(cluster.model).bytesPerRow;
    const perByte = {
      worker: costs.savePerRowUs / savedRowBytes(cluster.model),
      engine: costs.loadPerRowUs / savedRowBytes(cluster.model),
    };
    const lockTimes = { lock: Math.round(costs.lockUs), perByte };
    this.#lock = new TimedLock(this.judge, options.lockFile, clock, lockTimes, (owner, from, until) =>
      lockstep.noteLock(actorOf(lockstep.group, engine, owner), from, until),
    );
    const numReal = realRanks === 'all' ? tensorParallel : 1;
    const scenario = worldScenario(cluster, numReal);
    const run = { tested, router, judge: this.judge, log, marks: new Set<never>() };
    this.#world = new World(scenario, run, {
      ...ALONE,
      prefix: `engine ${engine}: `,
      lock: this.#lock,
      ended: new EndedRequests(),
      onEnd: (_, finish, rows) => this.#onEnd(finish, rows),
    });
    this.#passes = lockstep.group.enginePasses(engine);
    this.#clients = new Clients(cluster, engine);
    this.#queue = new BatchQueue({ engine: this, queueDepth, maxRestarts: 0 });
    this.#thread = new EngineThread(
      this.#queue,
      clock,
      { engine: () => 0, update: () => 0 },
      {
        standsUntil: (_, flight) => this.#busyUntil(flight?.entries.length ?? 0),
        onBegun: (flight) => this.#onBegun(flight),
        onFinished: (flight) => this.#recycle(flight),
        onUpdated: () => this.#wakeUp(),
      },
    );
    const ranks = Array.from({ length: tensorParallel }, (_, tensorRank) => engine * tensorParallel + tensorRank);
    this.#times = ranks.map((rank) => new RankTimes(clock, cluster, rank, node));
    this.#acceptedAt = ranks.map(() => 0);
    this.#acceptTimes = ranks.map(() => []);
    this.#ranks = ranks.slice(0, numReal).map((rank, i) => this.#realRank(rank, i));
    const readsSlots = this.#ranks[0]!.blocks;
    this.#timingRanks = ranks
      .slice(numReal)
      .map((rank, i) => new TimingRank({ rank, times: this.#times[numReal + i]!, lockstep, readsSlots }));
  }

  get isIdle(): boolean {
    return this.#world.isIdle;
  }

  get requestIds(): readonly string[] {
    return this.#world.requestIds;
  }

  get numSent(): number {
    return this.#clients.numSent;
  }

  /** Bytes that left the devices for capture. */
  get deviceToHost(): number {
    const ofTiming = this.#timingRanks.reduce((sum, { captureBytes }) => sum + captureBytes, 0);
    return this.#ranks.reduce((sum, rank) => sum + rank.captureBytes, ofTiming);
  }

  /** Bytes of rows that came to the engine: in messages, and read under the lock. */
  get hostToEngine(): number {
    return this.counts.hostToEngine + this.#lock.engineBytes;
  }

  beginStep(): Flight | null {
    return this.#world.beginStep();
  }

  finishStep(output: ModelRunnerOutput): readonly EngineCoreOutput[] {
    this.counts.hostToEngine += (output.routedExpertDeltas?.numRows ?? 0) * this.#bytesPerRow;
    const outputs = this.#world.finishStep(output);
    this.lastOutputAt = this.#options.clock.now;
    if (this.#isWarm) for (const { newTokenIds } of outputs) this.counts.tokens += newTokenIds.length;
    return outputs;
  }

  onWorkersLost(): void {
    this.#world.onWorkersLost();
  }

  failAll(): readonly EngineCoreOutput[] {
    return this.#world.failAll();
  }

  /** Its clients send their first requests. */
  start(): void {
    for (let i = 0; i < this.#options.cluster.concurrency; i += 1) this.#arrive(true);
  }

  /** Clients send nothing any more, and go away. */
  stop(): void {
    if (this.#thread.waits(Phase.client, () => this.stop())) return;
    this.#isClosed = true;
    this.#world.abort(this.#world.requestIds);
    this.#queue.stop();
    this.#wakeUp();
  }

  /** The ranks stand still for ever: every request ends, as behind a loss for good. */
  fail(error: RoutedExpertsError): void {
    this.#isClosed = true;
    for (const rank of [...this.#ranks, ...this.#timingRanks]) rank.isDead = true;
    this.#queue.lose(error);
    this.#queue.workersGone();
  }

  killRank(tensorRank: number): void {
    const numReal = this.#ranks.length;
    if (tensorRank < numReal) this.#ranks[tensorRank]!.isDead = true;
    else this.#timingRanks[tensorRank - numReal]!.isDead = true;
  }

  /** Another engine has begun a pass, or drained. */
  onGroupEvent(): void {
    this.#planDummies();
  }

  /** Called behind the last event. */
  checkEnd(): void {
    const world = this.#world;
    if (world.numAlive > 0)
      this.judge.stall('L8', `${world.numAlive} requests are alive: ${world.requestIds.join(', ')}`);
    world.checkDrained();
    // Ranks that stand still for ever hold what they were doing.
    if (!this.#options.lockstep.isGivenUp) {
      if (!this.#hasDrained) this.judge.stall('L8', `engine ${this.engine} has not drained`);
      for (const rank of this.#ranks) rank.checkDrained();
    }
    for (const rank of this.#ranks) rank.close();
    world.close();
  }

  /** Each rank has all layers. */
  readonly links = null;

  onHidden(): void {}

  onPhase(): void {}

  onOutput(rank: VirtualRank, flight: Flight, output: ModelRunnerOutput): void {
    const { clock, cluster } = this.#options;
    const changed = cluster.tested.mutation.output?.(output, flight.plan) ?? output;
    clock.plan(clock.now + this.#times[rank.number]!.message(), Phase.wire, () => {
      flight.outputs[rank.number] = changed;
      flight.numArrived += 1;
      if (flight.numArrived < this.#ranks.length) return;
      this.#compareRanks(flight);
      this.#queue.arrived(flight, flight.outputs[0]!);
      this.#thread.takeInAfter(() => {});
    });
  }

  get #isWarm(): boolean {
    const { clock, cluster } = this.#options;
    return clock.now >= cluster.warmUp && clock.now <= cluster.duration;
  }

  #realRank(rank: number, number: number): VirtualRank {
    const { engine, cluster, lockstep } = this.#options;
    const { numEngines, tensorParallel, dispatch } = cluster;
    const ranks = {
      dataParallelRank: engine,
      dataParallelSize: numEngines,
      tensorParallelSize: tensorParallel,
      isSequenceParallel: dispatch === 'naive-shards',
    };
    return new VirtualRank(number, this.#world, cluster.tested, {
      durations: this.#times[number]!,
      events: this,
      lockstep: {
        place: { ranks, dispatch },
        ...(lockstep.hasOtherEngines && {
          passComes: (stepId, numRows, goOn) => lockstep.passComes(rank, stepId, numRows, goOn),
        }),
        passBegins: (stepId) => lockstep.note(rank, 'pass', stepId),
        passEnded: ({ stepId, numTokens }, goOn) =>
          lockstep.passEnded(rank, { stepId, numTokens, acceptedAt: this.#acceptTimes[number]!.shift()! }, goOn),
        stepEnded: (stepId) => lockstep.stepEnded(rank, stepId),
      },
    });
  }

  #arrive(isFirst: boolean): void {
    const { clock } = this.#options;
    if (this.#isClosed || this.#thread.waits(Phase.client, () => this.#arrive(isFirst))) return;
    const request = this.#clients.next(clock.now, isFirst);
    if (request !== null) this.#world.add(request, clock.now);
    if (this.#clients.isDone) this.#queue.stop();
    this.#wakeUp();
  }

  #onEnd(finish: string, rows: readonly RoutedRows[]): void {
    const { counts } = this;
    const { clock, cluster } = this.#options;
    if (finish === 'abort') counts.aborted += 1;
    else if (finish === 'error' || finish === 'refused') counts.failed += 1;
    else counts.finished += 1;
    for (const { count, missing, numLayers, topK, dtype } of rows) {
      const numMissing = missing.reduce((sum, [from, to]) => sum + to - from, 0);
      counts.rowsMissing += numMissing;
      counts.rowsDelivered += count - numMissing;
      counts.toClients += (count - numMissing) * numLayers * topK * BYTES[dtype];
    }
    if (!this.#isClosed) clock.plan(clock.now + cluster.gap, Phase.client, () => this.#arrive(false));
  }

  /** The engine may have work, or owe the others a pass. */
  #wakeUp(): void {
    this.#thread.wakeUp();
    this.#planDummies();
  }

  #planDummies(): void {
    if (this.#dummiesArePlanned) return;
    this.#dummiesArePlanned = true;
    const { clock } = this.#options;
    clock.plan(clock.now, Phase.begin, () => this.#runDummies());
  }

  /** An engine that has nothing to run runs the passes of the others. */
  #runDummies(): void {
    if (this.#thread.waits(Phase.begin, () => this.#runDummies())) return;
    this.#dummiesArePlanned = false;
    if (this.#queue.numInFlight > 0 || this.#queue.state === 'failed') return;
    while (this.#passes.numOwed > 0) {
      this.#beginPass();
      this.counts.dummies += 1;
      this.#send(null, { stepId: DUMMY_STEP, numTokens: DUMMY_ROWS });
    }
    if (this.#queue.state !== 'stopped' || this.#hasDrained) return;
    this.#hasDrained = true;
    this.#passes.drain();
    this.#options.announce();
  }

  #onBegun(flight: Flight): void {
    const { plan, stepId } = flight;
    const numTokens = plan.totalNumScheduledTokens;
    if (plan.numRequests > 0) {
      this.#beginPass();
      this.counts.steps += 1;
      this.counts.exchange += exchangeBytes(this.#options.cluster, numTokens);
    }
    this.#send(flight, { stepId, numTokens });
    this.#planDummies();
  }

  #beginPass(): void {
    const { numEvents } = this.#passes;
    this.#passes.begin();
    if (this.#passes.numEvents !== numEvents) this.#options.announce();
  }

  /** `flight`: `null` for a dummy pass. Ranks of which only the time is simulated hear of passes alone. */
  #send(flight: Flight | null, pass: TimedPass): void {
    const { clock } = this.#options;
    for (const [i, times] of this.#times.entries()) {
      const real = this.#ranks[i];
      if (real === undefined && pass.numTokens === 0) continue;
      const at = Math.max(this.#acceptedAt[i]!, this.#thread.freeAt + times.message());
      this.#acceptedAt[i] = at;
      clock.plan(at, Phase.wire, () => {
        if (real === undefined) this.#timingRanks[i - this.#ranks.length]!.accept(pass);
        else if (!real.isDead) {
          if (pass.numTokens > 0) this.#acceptTimes[i]!.push(clock.now);
          if (flight === null) real.acceptDummy();
          else real.accept(flight);
        }
      });
    }
  }

  #recycle({ outputs }: Flight): void {
    for (const [i, output] of outputs.entries()) {
      const rows = output?.routedExpertDeltas?.rows;
      if (rows !== undefined) this.#ranks[i]!.recycle(rows);
    }
  }

  #compareRanks({ outputs, stepId }: Flight): void {
    for (const [rank, output] of outputs.entries()) {
      const difference = rankDifference(outputs[0]!, output!);
      if (difference === null) continue;
      this.judge.wrong('L2', `rank ${rank} differs from rank 0 in step ${stepId}: ${difference}`);
    }
  }

  /** Until when a call of the engine core has taken its thread: the core's work, its design's copies, the lock. */
  #busyUntil(numRequests: number): number {
    const { clock, cluster } = this.#options;
    const { costs } = cluster;
    // What the half copies under the lock is a part of the lock's time.
    const copied = this.#world.halfCopiedBytes - this.#bytesSeen;
    const locked = this.#lock.engineBytes - this.#lockedBytesSeen;
    this.#bytesSeen += copied;
    this.#lockedBytesSeen += locked;
    const work =
      costs.engineCallUs + costs.enginePerRequestUs * numRequests + (copied - locked) / (costs.engineCopyGBPerS * 1e3);
    const from = this.#lock.takeWait('engine') ?? clock.now;
    return Math.max(from, clock.now) + Math.max(0, Math.round(work));
  }
}

const BYTES = { uint8: 1, uint16: 2, int32: 4 } as const;
