/**
 * Drives a world and its ranks in virtual time, with clients that come and go and faults that strike at their moment.
 * The batch queue is the one that serves: where `EngineDriver` waits for promises, the storm plans events.
 */

import { RoutedExpertsError } from '../contract/errors.ts';
import type { ModelRunnerOutput } from '../contract/model-runner-output.ts';
import { BatchQueue } from '../worker/pipeline/batch-queue.ts';
import { StageLinks } from '../worker/pipeline/stages/stage-links.ts';
import { StageJoiner } from '../worker/pipeline/stages/stage-joiner.ts';
import { rankDifference } from '../worker/pipeline/rank-agreement.ts';
import { Phase, type Clock } from './virtual/event-heap.ts';
import type { Flight } from './flight.ts';
import { VirtualDurations } from './virtual/virtual-durations.ts';
import type { Fault, StepPhase } from './fault.ts';
import type { Scenario, ScenarioRequest } from './scenario.ts';
import type { TestedDesign } from './tested-design.ts';
import { countRanks } from './stages/stage-scenario.ts';
import { VirtualRank, type KvTask, type RankEvents } from './virtual/virtual-rank.ts';
import type { World } from './world.ts';

/** How many steps may be begun without any request coming nearer to its end. */
const STEPS_WITHOUT_PROGRESS = 200;

/** One for all: an error costs more than what a small world does between two faults. */
const KILLED = RoutedExpertsError.of('WORKER_LOST', 0, 'a fault');

export class Storm implements RankEvents {
  readonly #world: World;
  readonly #scenario: Scenario;
  readonly #tested: TestedDesign;
  readonly #durations: VirtualDurations;
  readonly #clock: Clock;
  readonly #faultsByStep: Map<number, Fault[]> = new Map();
  readonly #queue: BatchQueue<Flight>;
  #ranks: VirtualRank[] = [];
  /** Of a pipeline: puts the parts of its stages together. */
  readonly #joiner: StageJoiner | null;
  /** Of the ranks that live. */
  links: StageLinks | null = null;
  /** When the last hidden states of a rank reach the next stage. */
  readonly #handedOverAt: WeakMap<VirtualRank, number> = new WeakMap();
  #updateIsPlanned = false;
  #fillIsPlanned = false;
  #acceptedAt = 0;
  /**
   * The engine's thread stands still until this tick, because a slow process holds the lock that its step asked for.
   */
  #standsUntil = 0;
  #numSteps = 0;
  #numKills = 0;
  #progressSeen = 0;
  #stepsSinceProgress = 0;
  /** Buffers of rows that a consumer keeps without reading them. */
  readonly #unread: (() => void)[] = [];

  constructor(world: World, tested: TestedDesign, clock: Clock) {
    this.#world = world;
    this.#scenario = world.scenario;
    this.#tested = tested;
    this.#clock = clock;
    this.#durations = new VirtualDurations(clock, world.scenario);
    const { queueDepth, maxRestarts } = world.scenario;
    this.#queue = new BatchQueue({ engine: world, queueDepth, maxRestarts });
    this.#joiner = world.stages && new StageJoiner(world.scenario.model, world.stages);
    for (const fault of world.scenario.faults) {
      const { when } = fault;
      if ('at' in when) clock.plan(when.at, Phase.client, () => this.#strike(fault));
      else {
        const faults = this.#faultsByStep.get(when.step);
        if (faults === undefined) this.#faultsByStep.set(when.step, [fault]);
        else faults.push(fault);
      }
    }
    for (const request of world.scenario.requests) clock.plan(request.at, Phase.client, () => this.arrive(request));
    this.#startRanks();
  }

  get numSteps(): number {
    return this.#numSteps;
  }

  /** The workers are lost for good: no request is taken in any more. */
  get #isOver(): boolean {
    return this.#queue.state === 'failed';
  }

  /** A client hands in a request. */
  arrive(request: ScenarioRequest): void {
    if (this.#isOver || this.#waits(Phase.client, () => this.arrive(request))) return;
    this.#world.add(request, this.#clock.now);
    this.wakeUp();
  }

  /** A client goes away. */
  abort(ids: readonly string[]): void {
    if (this.#isOver) return;
    this.#world.abort(ids);
    this.wakeUp();
  }

  /**
   * Sends a KV task to all ranks, or to the rank to be read. It runs behind the steps begun before and ahead of those
   * begun later. Ranks that die do not report its end.
   */
  handKv(task: KvTask): void {
    const ranks = task.kind === 'read-kv' ? this.#ranks.slice(task.rank, task.rank + 1) : this.#ranks;
    for (const rank of ranks) this.#send(() => rank.acceptKv(task), rank);
  }

  /** Called after the last event: all requests must be over. */
  checkEnd(): void {
    const world = this.#world;
    for (const release of this.#unread) release();
    this.#queue.stop();
    if (world.numAlive > 0 || !(this.#isOver || this.#queue.state === 'stopped')) {
      const alive = `${world.numAlive} requests are alive: ${world.requestIds.join(', ')}`;
      world.judge.stall('L8', `nothing happens any more, and ${alive}`);
    }
    world.checkDrained();
    if (!this.#isOver) for (const rank of this.#ranks) rank.checkDrained();
    for (const rank of this.#ranks) rank.close();
    world.close();
  }

  onPhase(rank: VirtualRank, flight: Flight, phase: StepPhase): void {
    if (rank.number === 0) this.#reach(flight.stepId, phase);
  }

  onOutput(rank: VirtualRank, flight: Flight, output: ModelRunnerOutput): void {
    const { mutation } = this.#tested;
    const changed = mutation.output === undefined ? output : mutation.output(output, flight.plan);
    const arriveAt = this.#clock.now + this.#durations.wire();
    this.#clock.plan(arriveAt, Phase.wire, () => {
      if (rank.isDead) return;
      if (flight.outputs.length > rank.number + 1) this.#world.marks.add('outputs in another order than the ranks');
      flight.outputs[rank.number] = changed;
      flight.numArrived += 1;
      if (flight.numArrived < this.#ranks.length) return;
      this.#compareRanks(flight);
      flight.joined = this.#joiner === null ? flight.outputs[0]! : this.#joiner.join(this.#firstOfStages(flight));
      this.#queue.arrived(flight, flight.joined);
      this.#reachAndUpdate(flight.stepId, 'arrived');
    });
  }

  /** The rank of the same number in the next stage takes them, in the order of the steps. */
  onHidden(rank: VirtualRank, send: () => void): void {
    const next = this.#ranks[rank.number + this.#scenario.numRanks]!;
    const at = Math.max(this.#handedOverAt.get(rank) ?? 0, this.#clock.now + this.#durations.handOver());
    this.#handedOverAt.set(rank, at);
    this.#clock.plan(at, Phase.wire, () => {
      if (next.isDead) return;
      send();
      next.look();
    });
  }

  #firstOfStages({ outputs }: Flight): ModelRunnerOutput[] {
    const { numRanks } = this.#scenario;
    return outputs.filter((_, rank) => rank % numRanks === 0).map((output) => output!);
  }

  #startRanks(): void {
    const { engine, numRanks, queueDepth, stages } = this.#scenario;
    if (stages !== undefined) {
      const { maxNumBatchedTokens } = engine;
      const numStages = stages.split.length;
      const sizes = { tensorParallel: numRanks, numStages, depth: queueDepth, maxNumBatchedTokens };
      this.links = new StageLinks(sizes, new Int32Array(StageLinks.numWords(sizes)));
    }
    this.#ranks = Array.from(
      { length: countRanks(this.#scenario) },
      (_, i) => new VirtualRank(i, this.#world, this.#tested, this.#durations, this),
    );
  }

  /** Messages do not overtake each other. */
  #send(deliver: () => void, rank: VirtualRank): void {
    this.#acceptedAt = Math.max(this.#acceptedAt, this.#clock.now + this.#durations.wire());
    this.#clock.plan(this.#acceptedAt, Phase.wire, () => {
      if (!rank.isDead) deliver();
    });
  }

  /** The engine may have work. */
  wakeUp(): void {
    if (this.#fillIsPlanned || !this.#queue.canBegin) return;
    this.#fillIsPlanned = true;
    this.#clock.plan(this.#clock.now + this.#durations.engine(), Phase.begin, () => this.#fill());
  }

  /** Begins one step if there is room for it in the queue, and looks again a little later. */
  #fill(): void {
    if (this.#waits(Phase.begin, () => this.#fill())) return;
    this.#fillIsPlanned = false;
    if (!this.#queue.canBegin) return;
    const flight = this.#queue.begin();
    this.#noteWait();
    if (flight === null) return;
    this.#numSteps += 1;
    this.#countProgress();
    for (const rank of this.#ranks) this.#send(() => rank.accept(flight), rank);
    this.#reach(flight.stepId, 'begun');
    this.wakeUp();
  }

  /** Steps that bring no request nearer to its end are no progress, however many there are. */
  #countProgress(): void {
    const world = this.#world;
    if (world.progress > this.#progressSeen) {
      this.#progressSeen = world.progress;
      this.#stepsSinceProgress = 0;
      return;
    }
    this.#stepsSinceProgress += 1;
    if (this.#stepsSinceProgress <= STEPS_WITHOUT_PROGRESS) return;
    world.judge.stall('L8', `${STEPS_WITHOUT_PROGRESS} steps ran, and no request came nearer to its end`);
  }

  /** An output that has arrived wakes the engine's thread, whatever a fault of this moment makes of the step. */
  #reachAndUpdate(stepId: number, phase: StepPhase): void {
    const isDue = this.#queue.canFinish;
    this.#reach(stepId, phase);
    if (!isDue || this.#updateIsPlanned) return;
    this.#updateIsPlanned = true;
    this.#clock.plan(this.#clock.now + this.#durations.update(), Phase.update, () => this.#update());
  }

  #update(): void {
    if (this.#waits(Phase.update, () => this.#update())) return;
    this.#updateIsPlanned = false;
    if (!this.#queue.canFinish) return;
    const { outputs, joined, stepId } = this.#queue.finish()!.step;
    this.#noteWait();
    const ranks = this.#ranks;
    const recycle = (): void => {
      for (const [i, output] of outputs.entries()) {
        const rows = output?.routedExpertDeltas?.rows;
        if (rows !== undefined) ranks[i]!.recycle(rows);
      }
      if (this.#joiner === null || !joined?.routedExpertDeltas) return;
      // A view of the rows that was kept too long shows this value.
      joined.routedExpertDeltas.rows.fill(0xa5);
      this.#joiner.recycle(joined.routedExpertDeltas.rows);
    };
    if (this.#scenario.readsAtOnce) recycle();
    else this.#unread.push(recycle);
    this.#reachAndUpdate(stepId, 'updated');
    this.wakeUp();
  }

  /** Ranks of a stage run the same layers on the same tokens: they must agree. */
  #compareRanks({ outputs, stepId }: Flight): void {
    const { numRanks } = this.#scenario;
    for (const [rank, output] of outputs.entries()) {
      const first = rank - (rank % numRanks);
      const difference = rankDifference(outputs[first]!, output!);
      if (difference === null) continue;
      this.#world.judge.wrong('L2', `rank ${rank} differs from rank ${first} in step ${stepId}: ${difference}`);
    }
  }

  #reach(stepId: number, phase: StepPhase): void {
    const faults = this.#faultsByStep.get(stepId);
    if (faults === undefined) return;
    for (const fault of faults) {
      if ('phase' in fault.when && fault.when.phase === phase) this.#strike(fault);
    }
  }

  #strike(fault: Fault): void {
    if (this.#isOver || this.#waits(Phase.client, () => this.#strike(fault))) return;
    const world = this.#world;
    switch (fault.kind) {
      case 'abort':
        world.abort(fault.ids);
        break;
      case 'reset-cache':
        world.resetCache(fault.preempt);
        break;
      case 'kill':
        this.#kill(fault.rank);
        return;
      case 'slow-lock-holder': {
        const until = this.#clock.now + fault.ticks;
        world.lock.hold(until);
        this.#clock.plan(until, Phase.device, () => world.lock.letGo(until));
        break;
      }
      default:
        fault satisfies never;
    }
    this.wakeUp();
  }

  /**
   * Returns whether the engine's thread stands still; `run` is then planned for when it goes on. Everything that
   * happens on the thread keeps its order, faults too.
   */
  #waits(phase: Phase, run: () => void): boolean {
    if (this.#clock.now >= this.#standsUntil) return false;
    this.#clock.plan(this.#standsUntil, phase, run);
    return true;
  }

  #noteWait(): void {
    const until = this.#world.lock.takeWait('engine');
    if (until === null) return;
    this.#standsUntil = until;
    if (this.#world.log.isTracing)
      this.#world.say(`the engine stands still until tick ${until}, behind a slow lock holder`);
  }

  /** A rank dies, and the others are shut down. */
  #kill(rank: number): void {
    const world = this.#world;
    const queue = this.#queue;
    if (queue.state === 'restarting' || rank >= this.#ranks.length) return;
    this.#numKills += 1;
    if (world.log.isTracing) world.say(`rank ${rank} dies, ${queue.restartsLeft} restarts left`);
    if (this.#ranks[rank]!.stage > 0) world.marks.add('a stage behind the first lost');
    queue.lose(KILLED);
    for (const each of this.#ranks) each.isDead = true;
    queue.workersGone();
    const due = this.#numKills > this.#scenario.maxRestarts ? 'failed' : 'restarting';
    if (queue.state !== due) world.judge.wrong('L8', `after kill ${this.#numKills} the queue is ${queue.state}`);
    if (due === 'failed') world.marks.add('worker lost for good');
    else this.#clock.plan(this.#clock.now + this.#durations.respawn, Phase.worker, () => this.#respawn());
  }

  #respawn(): void {
    if (this.#waits(Phase.worker, () => this.#respawn())) return;
    this.#startRanks();
    this.#queue.restarted();
    this.wakeUp();
  }
}
