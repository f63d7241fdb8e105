/**
 * The engine core under watch: every call that a driver may make, each with checks of what it returns and of what it
 * leaves behind. It knows no time: the storm and its batch queue decide when a call is made.
 *
 *     add · abort · resetCache ─▶ ┌───────┐ ─beginStep─▶ Flight ─▶ ranks ─▶ output ─finishStep─▶ what the ledger says
 *     failAll · onWorkersLost ──▶ │ World │
 *                                 └───────┘ after each: requests and blocks conserved, buffers bounded
 */

import type { EngineCoreOutput, FinishReason } from '../contract/engine-core-output.ts';
import { RoutedExpertsError } from '../contract/errors.ts';
import type { KvLoad, KvLoadOutcome } from '../contract/kv-connector.ts';
import type { ModelRunnerOutput } from '../contract/model-runner-output.ts';
import type { CaptureRequest } from '../contract/request.ts';
import type { RoutedRows } from '../contract/routed-rows.ts';
import { EngineCore } from '../engine/engine-core.ts';
import type { Router } from '../kernels/model/route/route.ts';
import type { BatchedEngine } from '../worker/pipeline/batch-queue.ts';
import { CountCheck } from './laws/count-check.ts';
import type { Mark } from './coverage.ts';
import { watchedHalf, type EngineHalfMonitor } from './laws/engine-half-monitor.ts';
import type { Stage } from '../worker/pipeline/stages/stage-plan.ts';
import type { EventLog } from './event-log.ts';
import { describePlan, type Flight } from './flight.ts';
import type { Judge } from './laws/judge.ts';
import { Ledger } from './laws/ledger.ts';
import { OutputCheck } from './laws/output-check.ts';
import { PlanCheck } from './laws/plan-check.ts';
import { describeRequest, engineRequest, expectedRefusal } from './laws/request-rules.ts';
import { RowCheck } from './laws/row-check.ts';
import type { Scenario, ScenarioRequest } from './scenario.ts';
import { StagePasses } from './stages/stage-passes.ts';
import { stagesOfScenario } from './stages/stage-scenario.ts';
import { ALONE, type EngineSide } from './engine-side.ts';
import type { TestedDesign } from './tested-design.ts';
import { Flag, TrackedRequest, type LoadedKv } from './laws/tracked-request.ts';
import { VirtualLock, VirtualSharedRows } from './virtual/virtual-lock.ts';

/** What the worlds of one run share. */
export type RunContext = Readonly<{
  tested: TestedDesign;
  router: Router;
  judge: Judge;
  log: EventLog;
  marks: Set<Mark>;
}>;

export class World implements BatchedEngine<Flight> {
  readonly scenario: Scenario;
  readonly engine: EngineCore;
  readonly ledger: Ledger;
  readonly stages: readonly Stage[] | null;
  readonly passes: StagePasses;
  readonly judge: Judge;
  readonly log: EventLog;
  readonly marks: Set<Mark>;
  readonly lock: VirtualLock;
  /** The table in shared memory, made when a design asks for it. */
  #table: Int32Array | null = null;
  readonly flights: Flight[] = [];
  /** Counts up whenever the run comes nearer to its end. */
  progress = 0;
  numAlive = 0;

  readonly #half: EngineHalfMonitor | null;
  readonly #rowCheck: RowCheck;
  readonly #plans: PlanCheck;
  readonly #counts: CountCheck;
  readonly #outputs: OutputCheck;
  /** By request index: the engine numbers requests in the order in which it takes them in. */
  readonly #requests: TrackedRequest[] = [];
  readonly #byId = new Map<string, TrackedRequest>();
  readonly #rowLength: number;
  readonly #side: EngineSide;
  /** The rows handed out, by request, for a side that has `onEnd`. */
  readonly #handedOut: Map<TrackedRequest, RoutedRows[]> = new Map();

  constructor(scenario: Scenario, { tested, router, judge, log, marks }: RunContext, side: EngineSide = ALONE) {
    const { model, engine } = scenario;
    const requests = this.#requests;
    this.scenario = scenario;
    this.judge = judge;
    this.lock = new VirtualLock(judge);
    this.log = log;
    this.marks = marks;
    this.#rowLength = model.numLayers * model.topK;
    this.ledger = new Ledger({ scenario, router, judge, marks });
    this.stages = stagesOfScenario(scenario);
    this.passes = new StagePasses({ ledger: this.ledger, model, stages: this.stages, marks });
    this.#side = side;
    const { rowsAreSpliced } = side;
    this.#rowCheck = new RowCheck({ scenario, ledger: this.ledger, judge, requests, rowsAreSpliced });
    this.#outputs = new OutputCheck(engine.maxModelLen, judge);
    this.#plans = new PlanCheck({ engine, judge, marks, requests });
    const sharedRows = (): VirtualSharedRows => this.sharedRows('engine');
    this.#half = watchedHalf({ tested, model, engine, judge, lock: this.lock, sharedRows });
    this.engine = new EngineCore(engine, this.#half, { connector: side.connector });
    this.#counts = new CountCheck({
      scenario,
      engine: this.engine,
      half: this.#half,
      plans: this.#plans,
      requests,
      judge,
    });
  }

  sharedRows(owner: 'engine' | 'worker'): VirtualSharedRows {
    const { model, engine } = this.scenario;
    this.#table ??= new Int32Array(engine.numBlocks * engine.blockSize * model.numLayers * model.topK);
    return new VirtualSharedRows(this.#table, this.lock, owner);
  }

  /** Hands in a request, and checks that the engine refuses exactly those that it must. */
  add(spec: ScenarioRequest, arrivalTime: number): void {
    const isInUse = this.#byId.get(spec.id)?.isAlive === true;
    const expected = expectedRefusal(spec, this.scenario.engine, isInUse);
    let code: string | null = null;
    try {
      this.engine.addRequest(engineRequest(spec, arrivalTime));
    } catch (error) {
      if (!(error instanceof RoutedExpertsError) || isDefect(error)) throw error;
      code = error.code;
    }
    this.log.word(code === null ? 1 : 2);
    if (this.log.isTracing)
      this.say(code === null ? `"${spec.id}" arrives, ${describeRequest(spec)}` : `"${spec.id}" is refused: ${code}`);
    if (expected !== 'either' && code !== expected) {
      this.judge.wrong('L8', `"${spec.id}" was ${code ?? 'taken in'}, expected ${expected ?? 'to be taken in'}`);
    }
    if (code === null) {
      const { maxModelLen, numSpeculativeTokens } = this.scenario.engine;
      const maxPositions = maxModelLen + numSpeculativeTokens + 1;
      const index = this.#requests.length;
      const request = new TrackedRequest({ index, spec, arrivalTime, maxPositions, rowLength: this.#rowLength });
      this.#requests.push(request);
      this.#byId.set(spec.id, request);
      this.numAlive += 1;
    } else {
      this.marks.add('request refused');
      this.#side.onEnd?.(spec, 'refused', []);
    }
  }

  /** Aborts requests by id, as a client does; unknown and ended ids are no error. */
  abort(ids: readonly string[]): void {
    this.#endEarly(ids, 'abort');
  }

  failAll(): readonly EngineCoreOutput[] {
    return this.#endEarly(this.requestIds, 'error');
  }

  #endEarly(ids: readonly string[], finish: 'abort' | 'error'): readonly EngineCoreOutput[] {
    const due: TrackedRequest[] = [];
    for (const id of ids) {
      const request = this.#byId.get(id);
      if (request !== undefined && request.isAlive && !due.includes(request)) due.push(request);
    }
    for (const request of due) {
      if (request.state === 'waiting') this.marks.add('abort while waiting');
      const isBetween = this.flights.some((f) => f.isExecuted && f.entries.some((e) => e.request === request));
      if (isBetween) this.marks.add('abort between execute and update');
    }
    const outputs = finish === 'abort' ? this.engine.abort(ids) : this.engine.failAll();
    this.log.word(3);
    this.#outputs.requests(outputs, due);
    for (const [i, request] of due.entries()) {
      const output = outputs[i]!;
      this.#outputs.earlyEnd(request, output, finish);
      this.#end(request, finish, output);
    }
    this.checkCounts();
    return outputs;
  }

  resetCache(preempt: boolean): void {
    const { numUsedBlocks } = this.engine.stats();
    const isDone = this.engine.resetPrefixCache({ resetRunning: preempt });
    this.log.word(4);
    if (this.log.isTracing)
      this.say(`the prefix cache is reset${preempt ? ', running requests preempted' : ''}: ${isDone}`);
    // A refused reset has done nothing.
    const isDue = preempt ? !this.#plans.isUnderWay : numUsedBlocks === 0;
    if (preempt && isDone) this.#plans.preemptAll(this.flights);
    if (isDone !== isDue) this.judge.wrong('L8', `a cache reset answered ${isDone}`);
    this.checkCounts();
  }

  beginStep(): Flight | null {
    const plan = this.engine.beginStep();
    if (plan === null) {
      this.#plans.onNoPlan();
      return null;
    }
    this.judge.step = plan.stepId;
    if (this.engine.stats().numWithdrawals > 0) this.marks.add('withdrawn from the step being planned');
    const epoch = this.scenario.hasEpochs ? this.#side.firstEpoch + plan.stepId : 0;
    const flight = this.#plans.onPlan(plan, this.flights, epoch);
    this.flights.push(flight);
    const { queueDepth } = this.scenario;
    if (this.flights.length > queueDepth) this.judge.wrong('L8', `${this.flights.length} of ${queueDepth} steps run`);
    this.log.word(5);
    this.log.word(plan.stepId);
    this.log.words(plan.requestIndices, plan.numRequests);
    this.log.words(plan.numComputedTokens, plan.numRequests);
    this.log.words(plan.numScheduledTokens, plan.numRequests);
    this.log.words(plan.newBlockIds, plan.newBlockOffsets[plan.numRequests]);
    if (this.log.isTracing) this.say(describePlan(flight, this.#requests));
    return flight;
  }

  /** Returns the request of an index. */
  request(index: number): TrackedRequest {
    return this.#requests[index]!;
  }

  /** Called inside `beginStep`: a request waits for KV, which goes to the blocks of `view`. */
  onLoadBegun(load: KvLoad, view: CaptureRequest): void {
    const request = this.#requests[load.loadId]!;
    this.#plans.onLoadBegun(request, view, load.from);
    this.#half?.onLoadBegun(view);
    this.log.word(8);
    this.log.words([load.loadId, load.from, load.to]);
    if (this.log.isTracing) this.say(`${request.name} waits for the KV of [${load.from}, ${load.to})`);
  }

  /** The load that a request waits for has ended; `kv` is what it brought. */
  finishLoad(loadId: number, outcome: KvLoadOutcome, kv: LoadedKv | null): void {
    const request = this.#requests[loadId]!;
    const due = request.isAlive && outcome.kind === 'fail' ? [request] : [];
    if (this.log.isTracing) this.say(`the load of ${request.name} ends: ${outcome.kind}`);
    const outputs = this.engine.finishLoad(loadId, outcome);
    this.log.word(9);
    this.log.word(loadId);
    this.#plans.onLoadEnded(request, kv);
    this.#outputs.requests(outputs, due);
    for (const each of due) this.#end(each, 'error', outputs[0]!);
    this.progress += 1;
    this.checkCounts();
  }

  /** Called inside the last `finishStep` of a request: its blocks stay. */
  onKept(requestIndex: number): void {
    this.#plans.onKept(this.#requests[requestIndex]!);
  }

  /** The kept blocks of an ended request are not needed any more. */
  releaseBlocks(requestIndex: number): void {
    const request = this.#requests[requestIndex]!;
    this.engine.releaseBlocks(requestIndex);
    this.log.word(10);
    if (this.log.isTracing) this.say(`the blocks of ${request.name} are given back`);
    this.#plans.onKeptReleased(request);
    this.checkCounts();
  }

  /** Finishes the oldest step: every request must get what the ledger says. */
  finishStep(output: ModelRunnerOutput): readonly EngineCoreOutput[] {
    const flight = this.flights.shift()!;
    const due: TrackedRequest[] = [];
    for (const { request, sampled, from, to, isDropped, isStale } of flight.entries) {
      if (!request.isAlive) continue;
      if (isDropped) {
        if (sampled.length > 0) this.marks.add('stale output dropped by a cache reset');
        continue;
      }
      for (let p = from; p < to; p += 1) {
        if (!request.has(p, Flag.arrived)) this.progress += 1;
        request.flags[p]! |= Flag.arrived;
      }
      if (sampled.length === 0) continue;
      due.push(request);
      if (isStale) this.marks.add('stale output after preemption');
    }
    const outputs = this.engine.finishStep(output);
    this.log.word(6);
    this.#outputs.requests(outputs, due);
    let next = 0;
    for (const { request, sampled, isDropped } of flight.entries) {
      if (!request.isAlive || isDropped || sampled.length === 0) continue;
      this.#deliver(request, sampled, outputs[next]!);
      next += 1;
    }
    this.checkCounts();
    return outputs;
  }

  onWorkersLost(): void {
    // No pass has read the KV that was loaded for a waiting request: rows of it may not be delivered.
    for (const request of this.#requests) if (request.isAlive && !request.waitsWithBlocks) this.#noteHits(request);
    this.#plans.loseAll(this.flights);
    this.flights.length = 0;
    this.engine.onWorkersLost();
    this.ledger.onDeviceLost();
    this.passes.onDeviceLost();
    this.log.word(7);
    this.checkCounts();
  }

  /** All requests are over: nothing may be left of them (L7). */
  checkDrained(): void {
    this.#rowCheck.readAll();
    this.#counts.checkDrained();
  }

  close(): void {
    this.#half?.close();
  }

  /** The ids of the requests that must be live. */
  get requestIds(): readonly string[] {
    return this.#requests.filter(({ isAlive }) => isAlive).map(({ spec }) => spec.id);
  }

  get isIdle(): boolean {
    return this.engine.isIdle;
  }

  /** See `CountCheck.check`. */
  checkCounts(): void {
    this.#counts.check(this.numAlive);
  }

  #deliver(request: TrackedRequest, sampled: readonly number[], output: EngineCoreOutput): void {
    const numBefore = request.tokens.length;
    const finish = this.#outputs.tokens(request, sampled, output);
    this.progress += request.tokens.length - numBefore;
    this.log.word(request.index);
    this.log.words(output.newTokenIds);
    if (finish === 'stop') this.marks.add('stopped by a token');
    if (finish !== null) this.#end(request, finish, output);
    else this.#rows(request, output);
  }

  #end(request: TrackedRequest, finish: FinishReason, output: EngineCoreOutput): void {
    request.endedWithBlocks = request.state === 'running';
    this.#noteHits(request);
    this.#plans.end(request);
    request.state = 'ended';
    request.finish = finish;
    this.numAlive -= 1;
    this.progress += 1;
    if (this.log.isTracing) this.say(`${request.name} ends: ${finish}, ${request.numOutputs} tokens`);
    if (output.prefill?.numPromptTokens !== request.spec.prompt.length) {
      this.judge.wrong('L1', `${request.name} ended with a prompt of ${output.prefill?.numPromptTokens} tokens`);
    }
    this.#rows(request, output);
    if (request.spec.rows) this.#rowCheck.onEnd(request);
    if (this.#byId.get(request.spec.id) === request) this.#byId.delete(request.spec.id);
    const rows = this.#handedOut.get(request) ?? [];
    this.#handedOut.delete(request);
    this.#side.onEnd?.(request.spec, finish, rows);
  }

  /** Tells the ledger the prefix hits of a request that ends before its first pass has run. */
  #noteHits(request: TrackedRequest): void {
    if (request.waitsWithBlocks) {
      const { blockSize } = this.scenario.engine;
      const from = request.loadedKv?.from ?? request.numLoaded;
      this.ledger.noteHits(request, request.blocks, Math.floor(from / blockSize) * blockSize);
    }
    this.ledger.noteLoaded(request);
    for (const { isExecuted, entries } of this.flights) {
      if (isExecuted) continue;
      for (const entry of entries) {
        if (entry.request === request && entry.numHits > 0) this.ledger.noteHits(request, entry.blocks, entry.numHits);
      }
    }
  }

  #rows(request: TrackedRequest, { routedExperts }: EngineCoreOutput): void {
    if (routedExperts === null) return;
    this.log.word(routedExperts.start);
    this.log.word(routedExperts.count);
    for (const [from, to] of routedExperts.missing) this.log.words([from, to]);
    if (!request.spec.rows) this.judge.wrong('L5', `${request.name} did not opt in and was given rows`);
    else this.#rowCheck.onRows(request, routedExperts);
    if (this.#side.onEnd === null) return;
    const handedOut = this.#handedOut.get(request);
    if (handedOut === undefined) this.#handedOut.set(request, [routedExperts]);
    else handedOut.push(routedExperts);
  }

  say(text: string): void {
    this.log.line(this.judge.step, this.#side.prefix + text);
  }
}

/** Not a refusal of a request, but a defect of the code that was asked. */
function isDefect({ code }: RoutedExpertsError): boolean {
  return code === 'INVARIANT' || code === 'DESIGN_FAILED';
}
