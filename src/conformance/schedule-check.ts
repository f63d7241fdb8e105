/**
 * Feeds a recording of vLLM's scheduler to ours, event by event, and compares every decision: which requests are
 * scheduled, in what order, as what, with how many tokens and which blocks; which are preempted; the running list; the
 * free queue; every emission; the final state.
 */

import type { CaptureEngineHalf } from '../contract/capture.ts';
import type { EngineConfig } from '../contract/config.ts';
import type { EngineCoreOutput, FinishReason } from '../contract/engine-core-output.ts';
import type { ModelRunnerOutput, RoutedExpertDeltas } from '../contract/model-runner-output.ts';
import type { RoutedRows } from '../contract/routed-rows.ts';
import { PLACEHOLDER_TOKEN, RequestKind, type SchedulerOutput } from '../contract/scheduler-output.ts';
import type { BlockHasher } from '../engine/kv/block-hash.ts';
import { LiveRequests } from '../engine/live-requests.ts';
import { Request } from '../engine/request.ts';
import { Scheduler } from '../engine/scheduler.ts';
import { countPresent, rowAt } from '../capture/routed-rows.ts';
import { FIRST_HASH, nextHash, recordedExpert, type RecordedSpan } from './recorded-rows.ts';
import type { RecordedEvent, ScheduleRequest, RecordedSchedule, RowModel } from './recorded-schedule.ts';

/** Where the scheduler first departs from the recording. `step` is the step scheduled last, −1 before the first. */
export type Difference = Readonly<{ step: number; field: string; expected: unknown; actual: unknown }>;

export type ScheduleCheckOptions = Readonly<{
  hasher?: BlockHasher;
  /**
   * Builds the engine half whose emissions are compared with the recorded row counts and with the recording's row
   * function.
   */
  capture?: ((config: EngineConfig, rowModel: RowModel) => CaptureEngineHalf) | null;
  /** Makes what the worker half of that design would send, for the requests of a step in the worker's order. */
  rows?: ((spans: readonly RecordedSpan[], rowModel: RowModel, config: EngineConfig) => RoutedExpertDeltas) | null;
}>;

const KIND_NAMES = { [RequestKind.running]: 'running', [RequestKind.new]: 'new', [RequestKind.resumed]: 'resumed' };

class Departure extends Error {
  readonly difference: Difference;
  constructor(difference: Difference) {
    super(difference.field);
    this.difference = difference;
  }
}

const same = (a: unknown, b: unknown): boolean => {
  if (!Array.isArray(a) || !Array.isArray(b)) return a === b;
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i += 1) if (!same(a[i], b[i])) return false;
  return true;
};

const sorted = (ids: readonly string[]): string[] => ids.toSorted((a, b) => (a < b ? -1 : a > b ? 1 : 0));

/** A step on its way: what a worker would remember of it. */
type StepInFlight = Readonly<{ stepId: number; spans: Map<string, RecordedSpan> }>;

type Totals = { rows: number; finish: FinishReason | null };

class ScheduleCheck {
  readonly #recording: RecordedSchedule;
  readonly #options: ScheduleCheckOptions;
  readonly #live: LiveRequests;
  readonly #scheduler: Scheduler;
  readonly #capture: CaptureEngineHalf | null;
  readonly #recorded = new Map<string, ScheduleRequest>();
  readonly #requests = new Map<string, Request>();
  readonly #byIndex: Request[] = [];
  readonly #totals = new Map<string, Totals>();
  readonly #inFlight: StepInFlight[] = [];
  readonly #tables = new Map<number, number[]>();
  #step = -1;

  constructor(recording: RecordedSchedule, options: ScheduleCheckOptions) {
    this.#recording = recording;
    this.#options = options;
    this.#capture = options.capture?.(recording.config, recording.rowModel) ?? null;
    const { hasher } = options;
    this.#live = new LiveRequests(recording.config, this.#capture, hasher === undefined ? {} : { hasher });
    this.#scheduler = new Scheduler(this.#live);
    for (const request of recording.requests) this.#recorded.set(request.id, request);
  }

  run(): Difference | null {
    try {
      for (const event of this.#recording.timeline) this.#apply(event);
      this.#compareFinal();
      return null;
    } catch (error) {
      if (error instanceof Departure) return error.difference;
      // A recording of another scheduler can ask for what ours refuses: that, too, is a difference.
      return { step: this.#step, field: 'error', expected: null, actual: (error as Error).message };
    } finally {
      this.#capture?.close?.();
    }
  }

  #expect(field: string, expected: unknown, actual: unknown): void {
    if (!same(expected, actual)) throw new Departure({ step: this.#step, field, expected, actual });
  }

  #id(index: number): string {
    return this.#byIndex[index]!.requestId;
  }

  #request(id: string, field: string): Request {
    const request = this.#requests.get(id);
    if (request === undefined) throw new Departure({ step: this.#step, field, expected: id, actual: null });
    return request;
  }

  #expectFreeQueue(op: string, expected: readonly number[]): void {
    this.#expect(`${op}.freeQueue`, expected, this.#live.kv.pool.freeQueue());
  }

  #apply(event: RecordedEvent): void {
    switch (event.op) {
      case 'add':
        return this.#add(event.id);
      case 'schedule':
        return this.#schedule(event);
      case 'output':
        return this.#output(event);
      case 'drafts':
        for (const [i, id] of event.ids.entries()) {
          const drafts = Uint32Array.from(event.drafts[i]!);
          this.#request(id, 'drafts.ids').setDrafts(
            drafts,
            0,
            drafts.length,
            this.#scheduler.config.numSpeculativeTokens,
          );
        }
        return undefined;
      case 'abort':
        this.#account(this.#live.abort(this.#request(event.id, 'abort.id')));
        return this.#expectFreeQueue('abort', event.freeQueue);
      case 'resetPrefixCache':
        this.#expect('resetPrefixCache.ok', event.ok, this.#live.resetPrefixCache(event));
        return this.#expectFreeQueue('resetPrefixCache', event.freeQueue);
      default:
        return event satisfies never;
    }
  }

  #add(id: string): void {
    const recorded = this.#recorded.get(id);
    if (recorded === undefined || this.#requests.has(id)) {
      throw new Departure({ step: this.#step, field: 'add.id', expected: id, actual: null });
    }
    const request = new Request(this.#byIndex.length, {
      requestId: id,
      promptTokenIds: Uint32Array.from(recorded.promptTokenIds),
      sampling: {
        maxTokens: recorded.maxTokens,
        minTokens: recorded.minTokens,
        eosTokenId: null,
        stopTokenIds: recorded.stopTokenIds,
        returnRoutedExperts: this.#capture !== null,
        routedExpertsPromptStart: 0,
      },
      priority: recorded.priority,
      arrivalTime: recorded.arrivalTime,
      cacheSalt: recorded.cacheSalt,
    });
    this.#requests.set(id, request);
    this.#byIndex.push(request);
    this.#totals.set(id, { rows: 0, finish: null });
    this.#live.add(request);
  }

  #schedule(event: RecordedEvent & { op: 'schedule' }): void {
    this.#step = event.step;
    const step = this.#scheduler.schedule();
    this.#expect('step', event.step, step.stepId);
    const ids: string[] = [];
    for (let i = 0; i < step.numRequests; i += 1) ids.push(this.#id(step.requestIndices[i]!));
    this.#expect(
      'scheduled',
      event.scheduled.map(({ id }) => id),
      ids,
    );
    for (const [i, recorded] of event.scheduled.entries()) {
      const at = `scheduled.${recorded.id}`;
      this.#expect(`${at}.kind`, recorded.kind, KIND_NAMES[step.kinds[i] as RequestKind]);
      this.#expect(`${at}.computed`, recorded.computed, step.numComputedTokens[i]);
      this.#expect(`${at}.tokens`, recorded.tokens, step.numScheduledTokens[i]);
      const blocks = step.newBlockIds.subarray(step.newBlockOffsets[i], step.newBlockOffsets[i + 1]);
      this.#expect(`${at}.newBlocks`, recorded.newBlocks, [...blocks]);
      const drafts = step.draftTokenIds.subarray(step.draftOffsets[i], step.draftOffsets[i + 1]);
      const shown = [...drafts].map((token) => (token === PLACEHOLDER_TOKEN ? -1 : token));
      // Where the prefill threshold narrows a padded request, vLLM lists the padding in full. A step of n tokens can
      // run n − 1 drafts.
      this.#expect(`${at}.drafts`, recorded.drafts.slice(0, recorded.tokens - 1), shown);
    }
    const preempted = sorted(step.preemptedIndices.map((index) => this.#id(index)));
    this.#expect('preempted', sorted(event.preempted), preempted);
    this.#expect('finished', sorted(event.finished), sorted(step.finishedIndices.map((index) => this.#id(index))));
    const running = this.#live.running.map(({ requestId }) => requestId);
    this.#expect('running', event.running, running);
    this.#expectFreeQueue('schedule', event.freeQueue);
    this.#inFlight.push({ stepId: step.stepId, spans: this.#capture === null ? new Map() : this.#spans(step) });
  }

  /**
   * What the workers would compute for each request of the step. Asynchronous drafts are read off the tokens that came
   * later.
   */
  #spans(step: SchedulerOutput): Map<string, RecordedSpan> {
    const spans = new Map<string, RecordedSpan>();
    for (let i = 0; i < step.numRequests; i += 1) {
      const index = step.requestIndices[i]!;
      const request = this.#byIndex[index]!;
      const newBlocks = step.newBlockIds.subarray(step.newBlockOffsets[i], step.newBlockOffsets[i + 1]);
      const table = step.kinds[i] === RequestKind.running ? this.#tables.get(index)! : [];
      table.push(...newBlocks);
      this.#tables.set(index, table);
      const tokenStart = step.numComputedTokens[i]!;
      const numTokens = step.numScheduledTokens[i]!;
      const final = this.#recording.final[request.requestId];
      const known = [...request.tokenIds.subarray(0, request.numPromptTokens), ...(final?.outputTokenIds ?? [])];
      const tokenIds = new Uint32Array(Math.max(tokenStart + numTokens, known.length));
      tokenIds.set(known);
      const numDrafts = step.draftOffsets[i + 1]! - step.draftOffsets[i]!;
      const blockIds = Uint32Array.from(table);
      spans.set(request.requestId, { index, tokenStart, numTokens, numDrafts, tokenIds, blockIds });
    }
    return spans;
  }

  #output(event: RecordedEvent & { op: 'output' }): void {
    const step = this.#inFlight.shift();
    this.#expect('output.step', event.step, step?.stepId);
    const offsets = new Uint32Array(event.order.length + 1);
    for (const [i, tokens] of event.sampled.entries()) offsets[i + 1] = offsets[i]! + tokens.length;
    const { rows } = this.#options;
    let routedExpertDeltas: RoutedExpertDeltas | null = null;
    if (this.#capture !== null && rows && event.order.length > 0) {
      const spans: RecordedSpan[] = [];
      for (const id of event.order) {
        const span = step!.spans.get(id);
        if (span === undefined) continue;
        // Asynchronous scheduling counts drafts as computed that were rejected meanwhile: the last token that is no
        // draft is known.
        const lastStart = this.#request(id, 'output.order').numTokens - (span.numTokens - span.numDrafts);
        spans.push({ ...span, tokenStart: Math.min(span.tokenStart, lastStart) });
      }
      routedExpertDeltas = rows(spans, this.#recording.rowModel, this.#recording.config);
    }
    const output: ModelRunnerOutput = {
      stepId: event.step,
      numRequests: event.order.length,
      requestIndices: Uint32Array.from(event.order, (id) => this.#request(id, 'output.order').index),
      sampledTokenIds: Uint32Array.from(event.sampled.flat()),
      sampledOffsets: offsets,
      drafts: null,
      routedExpertDeltas,
    };
    const emitted = this.#scheduler.update(output);
    this.#expect(
      'emitted',
      event.emitted.map(({ id }) => id),
      emitted.map(({ requestId }) => requestId),
    );
    for (const [i, recorded] of event.emitted.entries()) {
      const actual = emitted[i]!;
      const at = `emitted.${recorded.id}`;
      this.#expect(`${at}.tokens`, recorded.tokens, actual.newTokenIds);
      this.#expect(`${at}.finish`, recorded.finish, actual.finishReason);
      if (this.#capture !== null)
        this.#expect(
          `${at}.rows`,
          recorded.rows,
          actual.routedExperts === null ? 0 : countPresent(actual.routedExperts),
        );
      this.#account(actual);
    }
    this.#expectFreeQueue('output', event.freeQueue);
  }

  /** Adds an output to its request's totals, and checks each row that came with it against the row function. */
  #account(output: EngineCoreOutput): void {
    const totals = this.#totals.get(output.requestId)!;
    if (output.finishReason !== null) totals.finish = output.finishReason;
    if (output.routedExperts === null) return;
    totals.rows += countPresent(output.routedExperts);
    this.#compareRows(output.requestId, output.finishReason, output.routedExperts);
  }

  #compareRows(id: string, finish: FinishReason | null, rows: RoutedRows): void {
    if (finish !== 'abort') this.#expect(`rows.${id}.missing`, 0, rows.count - countPresent(rows));
    const { layers, topK, experts } = this.#recording.rowModel;
    const { tokenIds } = this.#requests.get(id)!;
    let hash = FIRST_HASH;
    for (let p = 0; p < rows.start + rows.count; p += 1) {
      hash = nextHash(hash, tokenIds[p]!);
      const row = p < rows.start ? null : rowAt(rows, p);
      if (row === null) continue;
      const expected: number[] = [];
      for (let l = 0; l < layers; l += 1)
        for (let k = 0; k < topK; k += 1) expected.push(recordedExpert(hash, l, k, experts));
      this.#expect(`rows.${id}[${p}]`, expected, [...row]);
    }
  }

  #compareFinal(): void {
    for (const [id, final] of Object.entries(this.#recording.final)) {
      const request = this.#request(id, `final.${id}`);
      const totals = this.#totals.get(id)!;
      this.#expect(`final.${id}.outputTokenIds`, final.outputTokenIds, request.outputTokenIds());
      this.#expect(`final.${id}.finish`, final.finish, totals.finish);
      this.#expect(`final.${id}.preemptions`, final.preemptions, request.numPreemptions);
      if (this.#capture !== null) this.#expect(`final.${id}.rows`, final.rows, totals.rows);
    }
    if (this.#capture === null) return;
    const { requests, bytes } = this.#capture.liveCounts();
    const { running, waiting } = this.#live;
    const isDrained = running.length + waiting.length === 0;
    if (isDrained) this.#expect('final.liveRequests', 0, requests);
    if (isDrained) this.#expect('final.liveBytes', 0, bytes);
  }
}

/** The first difference between a recording and our scheduler, or `null` if there is none. */
export const checkSchedule = (recording: RecordedSchedule, options: ScheduleCheckOptions = {}): Difference | null =>
  new ScheduleCheck(recording, options).run();
