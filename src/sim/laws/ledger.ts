/**
 * What the model computes, kept independently of the code under test, and compared with the device when a forward pass
 * has run.
 *
 * For each request the ledger holds the chain of tokens, and the sum of the keys that attention over them must have
 * read. A wrong block, a block given away too early or a stale slot changes what the device read, and so its row or its
 * token. With epochs a key tells which pass wrote it: a row then belongs to the very KV that the request attended to
 * (L9).
 *
 *     slot      token · position · epoch · row        as written last; position −1: nothing that may be read
 */

import type { WorkerStep } from '../../contract/capture.ts';
import type { EngineConfig, ModelConfig } from '../../contract/config.ts';
import { RequestKind } from '../../contract/scheduler-output.ts';
import { hiddenX, hiddenY, keyBase, keyX, keyY, nextToken, termX, termY } from '../../kernels/model/mix/mix.ts';
import type { Router } from '../../kernels/model/route/route.ts';
import type { SampledLayout } from '../../kernels/model/sample/sampled-layout.ts';
import type { Mark } from '../coverage.ts';
import type { Flight, FlightEntry } from '../flight.ts';
import type { Scenario } from '../scenario.ts';
import type { Judge } from './judge.ts';
import type { SlotContents } from './slot-contents.ts';
import { Flag, type LoadedKv, type RowOfStep, type TrackedRequest } from './tracked-request.ts';

const NOTHING = -1;

type Ledgered = Readonly<{ scenario: Scenario; router: Router; judge: Judge; marks: Set<Mark> }>;

/** What a forward pass left on the device, and the step as the worker ran it. */
export type ExecutedStep = Readonly<{
  step: WorkerStep;
  routed: Uint32Array;
  sampled: Uint32Array;
  layout: SampledLayout;
}>;

export class Ledger {
  readonly #model: ModelConfig;
  readonly #engine: EngineConfig;
  readonly #router: Router;
  readonly #judge: Judge;
  readonly #marks: Set<Mark>;
  readonly #rowLength: number;
  readonly #hasEpochs: boolean;
  readonly #slotTokens: Int32Array;
  readonly #slotPositions: Int32Array;
  readonly #slotEpochs: Int32Array;
  readonly #slotSalts: (string | null)[];
  readonly #slotRows: (Uint16Array | null)[];
  /** The step that wrote each slot last. */
  readonly #slotSteps: Int32Array;

  constructor({ scenario, router, judge, marks }: Ledgered) {
    const { model, engine, hasEpochs } = scenario;
    this.#model = model;
    this.#engine = engine;
    this.#router = router;
    this.#judge = judge;
    this.#marks = marks;
    this.#hasEpochs = hasEpochs;
    this.#rowLength = model.numLayers * model.topK;
    const numSlots = engine.numBlocks * engine.blockSize;
    this.#slotTokens = new Int32Array(numSlots);
    this.#slotPositions = new Int32Array(numSlots).fill(NOTHING);
    this.#slotEpochs = new Int32Array(numSlots);
    this.#slotSteps = new Int32Array(numSlots).fill(NOTHING);
    this.#slotSalts = Array<null>(numSlots);
    this.#slotRows = Array<null>(hasEpochs ? numSlots : 0);
  }

  /** The device is gone, and all KV with it. */
  onDeviceLost(): void {
    this.#slotPositions.fill(NOTHING);
    this.#slotSteps.fill(NOTHING);
  }

  /**
   * A forward pass has run. Requests are gone through in the scheduler's order: a request may have hit a block that
   * another request of the same step fills.
   */
  onExecuted(flight: Flight, executed: ExecutedStep): void {
    const { step } = executed;
    const { plan, entries } = flight;
    if (step.numRequests !== plan.numRequests || step.numTokens !== plan.totalNumScheduledTokens) {
      this.#judge.wrong(
        'L3',
        `the worker ran ${step.numRequests} requests with ${step.numTokens} tokens of step ${flight.stepId}, ` +
          `planned were ${plan.numRequests} with ${plan.totalNumScheduledTokens}`,
      );
      return;
    }
    for (let i = 0; i < entries.length; i += 1) {
      const entry = entries[i]!;
      const w = placeOf(step, entry.request.index, i);
      if (w !== i) this.#marks.add('rows of a worker order unlike the scheduler’s');
      if (w < 0) {
        this.#judge.wrong('L3', `the worker did not run request ${entry.request.name} of step ${flight.stepId}`);
        continue;
      }
      this.#join(flight, i);
      this.#compute(flight, entry, executed, w);
    }
    flight.isExecuted = true;
  }

  /**
   * Returns the row that a position must have, in deterministic mode. `null`: no forward pass and no hit has ever
   * reached it.
   */
  rowOf(request: TrackedRequest, position: number): Uint16Array | null {
    const at = position * this.#rowLength;
    if (!request.has(position, Flag.routed)) {
      if (position >= request.sumX.length && !request.has(position, Flag.hit)) return null;
      for (let p = request.sumX.length; p <= position; p += 1) this.#push(request, p, request.tokens[p]!, 0);
      const x = hiddenX(request.sumX[position]!);
      this.#router.route(x, hiddenY(request.sumY[position]!, x), request.rows, at);
      request.flags[position]! |= Flag.routed;
    }
    return request.rows.subarray(at, at + this.#rowLength);
  }

  /**
   * The request was admitted with `numHits` cached tokens and ends before its pass has run: rows of the tokens that are
   * computed may be delivered.
   */
  noteHits(request: TrackedRequest, blocks: readonly number[], numHits: number): void {
    for (let position = 0; position < numHits; position += 1) {
      const slot = this.#slotIn(blocks, position);
      if (this.#slotPositions[slot] !== position || this.#slotTokens[slot] !== request.tokens[position]) continue;
      request.flags[position]! |= Flag.hit;
      if (this.#hasEpochs)
        this.#keepRow(request, position, { stepId: NOTHING, row: this.#slotRows[slot]!, isForbidden: false });
    }
  }

  /**
   * Returns what the kept block table of an ended request holds at `[from, to)`, for another engine to take over. It
   * must be KV of the request's own tokens (L9).
   */
  readKv(request: TrackedRequest, blocks: readonly number[], from: number, to: number): LoadedKv {
    const epochs: number[] = [];
    const rows: Uint16Array[] = [];
    for (let position = from; position < to; position += 1) {
      const slot = this.#slotIn(blocks, position);
      if (this.#slotPositions[slot] !== position || this.#slotTokens[slot] !== request.tokens[position]) {
        this.#judge.wrong(
          'L9',
          `slot ${slot} was read for position ${position} of ${request.name}, but holds token ` +
            `${this.#slotTokens[slot]} at position ${this.#slotPositions[slot]}`,
        );
      }
      epochs.push(this.#slotEpochs[slot]!);
      if (this.#hasEpochs) rows.push(this.#slotRows[slot]!);
    }
    return { from, to, epochs, rows };
  }

  /** What a block of the device holds, to be kept outside of it. */
  contentsOf(blockId: number): SlotContents {
    const { blockSize } = this.#engine;
    const [from, to] = [blockId * blockSize, (blockId + 1) * blockSize];
    return {
      tokens: Array.from(this.#slotTokens.subarray(from, to)),
      positions: Array.from(this.#slotPositions.subarray(from, to)),
      epochs: Array.from(this.#slotEpochs.subarray(from, to)),
      salts: this.#slotSalts.slice(from, to),
      rows: this.#hasEpochs ? this.#slotRows.slice(from, to) : [],
    };
  }

  /** KV from elsewhere has been written to the request's blocks. */
  writeKv(request: TrackedRequest, blocks: readonly number[], kv: LoadedKv): void {
    for (let position = kv.from; position < kv.to; position += 1) {
      const slot = this.#slotIn(blocks, position);
      this.#slotTokens[slot] = request.tokens[position]!;
      this.#slotPositions[slot] = position;
      this.#slotEpochs[slot] = kv.epochs[position - kv.from]!;
      this.#slotSalts[slot] = request.spec.salt;
      this.#slotSteps[slot] = NOTHING;
      if (this.#hasEpochs) this.#slotRows[slot] = kv.rows[position - kv.from]!;
    }
  }

  /**
   * The request ends before a pass has read its loaded KV: rows of that KV may be delivered. Rows of loaded KV that was
   * taken away again may not, since no pass of the request has read it.
   */
  noteLoaded(request: TrackedRequest): void {
    const { loadedKv } = request;
    if (loadedKv === null) return;
    const end = Math.min(loadedKv.to, request.tokens.length - 1);
    for (let position = loadedKv.from; position < end; position += 1) {
      request.flags[position]! |= Flag.hit;
      if (this.#hasEpochs)
        this.#keepRow(request, position, {
          stepId: NOTHING,
          row: loadedKv.rows[position - loadedKv.from]!,
          isForbidden: false,
        });
    }
  }

  /** Takes the block table and known tokens of a joining request; its prefix hits must hold KV of its own tokens. */
  #join(flight: Flight, i: number): void {
    const { plan } = flight;
    const { request } = flight.entries[i]!;
    const isJoining = plan.kinds[i] !== RequestKind.running;
    if (isJoining) {
      request.table.length = 0;
      request.numComputed = 0;
    }
    for (let b = plan.newBlockOffsets[i]!; b < plan.newBlockOffsets[i + 1]!; b += 1) {
      request.table.push(plan.newBlockIds[b]!);
    }
    if (!isJoining) return;
    const data = plan.newRequests.find(({ index }) => index === request.index)!;
    request.chain = [];
    for (let p = 0; p < data.numTokens; p += 1) request.chain.push(data.tokenIds[p]!);
    const numHits = plan.numComputedTokens[i]!;
    for (let position = 0; position < numHits; position += 1) {
      const slot = this.#slotOf(request, position);
      const token = request.chain[position]!;
      if (
        this.#slotPositions[slot] !== position ||
        this.#slotTokens[slot] !== token ||
        this.#slotSalts[slot] !== request.spec.salt
      ) {
        this.#judge.wrong(
          'L9',
          `request ${request.name} was admitted in step ${flight.stepId} with cached slot ${slot} for its ` +
            `token ${token} at position ${position}, but the slot holds token ${this.#slotTokens[slot]} ` +
            `at position ${this.#slotPositions[slot]}`,
        );
        return;
      }
      this.#push(request, position, token, this.#slotEpochs[slot]!);
      if (this.#slotSteps[slot] === NOTHING && !request.has(position, Flag.loaded)) {
        this.#marks.add('blocks with loaded KV hit by another request');
      }
      request.flags[position]! |= Flag.hit;
      if (this.#hasEpochs)
        this.#keepRow(request, position, { stepId: NOTHING, row: this.#slotRows[slot]!, isForbidden: false });
    }
    request.numComputed = numHits;
    request.loadedKv = null;
  }

  /** Takes in what the step computed for one request, the one that the worker ran as its `w`-th. */
  #compute(flight: Flight, entry: FlightEntry, { step, routed, sampled, layout }: ExecutedStep, w: number): void {
    const { request } = entry;
    const start = step.tokenStarts[w]!;
    const count = step.tokenCounts[w]!;
    const numDrafts = step.draftCounts[w]!;
    const numBase = count - numDrafts;
    if (start !== request.numComputed) {
      this.#judge.wrong(
        'L3',
        `request ${request.name} runs from position ${start} in step ${flight.stepId}, but ` +
          `${request.numComputed} are computed`,
      );
      return;
    }
    const samples = start + numBase === request.chain.length;
    const numSampled = layout.count(sampled, w);
    const most = samples ? 1 + numDrafts : 0;
    if (numSampled > most || (samples && numSampled === 0) || start + numBase > request.chain.length) {
      this.#judge.wrong(
        'L1',
        `request ${request.name} got ${numSampled} tokens in step ${flight.stepId}; it ran ${numBase} tokens and ` +
          `${numDrafts} drafts from position ${start} on, ${request.chain.length} tokens were known`,
      );
      return;
    }
    const tokensAt = layout.tokensAt(w);
    for (let s = 0; s < numSampled; s += 1) request.chain.push(sampled[tokensAt + s]!);
    const end = start + numBase + Math.max(0, numSampled - 1);
    for (let position = start; position < end; position += 1) {
      this.#step(flight, entry, position, step.rowStarts[w]! + position - start, routed);
      if (position < start + numBase - 1 || !samples) continue;
      const x = hiddenX(request.sumX[position]!);
      const truth = nextToken(x, hiddenY(request.sumY[position]!, x), this.#model.vocabSize);
      if (truth === request.chain[position + 1]) continue;
      this.#judge.wrong(
        'L2',
        `request ${request.name} sampled token ${request.chain[position + 1]} at position ${position + 1} in step ` +
          `${flight.stepId}; its prefix gives ${truth}: the pass read KV that is not the request's`,
      );
    }
    // Keys of rejected drafts stay in their slots until the positions are computed again.
    for (let position = end; position < start + count; position += 1) {
      const slot = this.#slotOf(request, position);
      this.#slotPositions[slot] = NOTHING;
      this.#slotSteps[slot] = flight.stepId;
    }
    if (
      samples &&
      numSampled <= numDrafts &&
      Math.floor((start + count - 1) / this.#engine.blockSize) !== blockOf(end - 1, this.#engine)
    )
      this.#marks.add('spec rejection across a block boundary');
    request.numComputed = end;
    entry.sampled = request.chain.slice(request.chain.length - numSampled);
    entry.from = start;
    entry.to = end;
  }

  /** Takes in one computed position: its key, its slot, its row. */
  #step(flight: Flight, entry: FlightEntry, position: number, row: number, routed: Uint32Array): void {
    const { request } = entry;
    const token = request.chain[position]!;
    const slot = this.#slotOf(request, position);
    if (this.#slotSteps[slot] === flight.stepId) {
      this.#judge.wrong('L8', `two requests write slot ${slot} in step ${flight.stepId}; one is ${request.name}`);
    }
    this.#push(request, position, token, flight.epoch);
    this.#slotTokens[slot] = token;
    this.#slotPositions[slot] = position;
    this.#slotEpochs[slot] = flight.epoch;
    this.#slotSteps[slot] = flight.stepId;
    request.flags[position]! |= Flag.computed;
    const truth = this.#hasEpochs ? this.#routeNow(request, position) : this.rowOf(request, position)!;
    const at = row * this.#rowLength;
    for (let i = 0; i < this.#rowLength; i += 1) {
      if (truth[i] === routed[at + i]) continue;
      const got = Array.from(routed.subarray(at, at + this.#rowLength));
      this.#judge.wrong(
        'L2',
        `request ${request.name}, position ${position}: the router of step ${flight.stepId} chose [${got}], the ` +
          `prefix gives [${Array.from(truth)}]`,
      );
      break;
    }
    this.#slotSalts[slot] = request.spec.salt;
    if (!this.#hasEpochs) return;
    this.#slotRows[slot] = truth;
    this.#keepRow(request, position, { stepId: flight.stepId, row: truth, isForbidden: entry.isDropped });
  }

  #routeNow(request: TrackedRequest, position: number): Uint16Array {
    const row = new Uint16Array(this.#rowLength);
    const x = hiddenX(request.sumX[position]!);
    this.#router.route(x, hiddenY(request.sumY[position]!, x), row, 0);
    return row;
  }

  #keepRow(request: TrackedRequest, position: number, row: RowOfStep): void {
    const rows = request.rowsOfSteps.get(position);
    if (rows === undefined) request.rowsOfSteps.set(position, [row]);
    else rows.push(row);
  }

  /**
   * Extends the sums by the key of `position`. Sums behind it, from before a preemption, stay until they are
   * overwritten.
   */
  #push(request: TrackedRequest, position: number, token: number, epoch: number): void {
    const base = keyBase(position, epoch);
    const x = position === 0 ? 0 : request.sumX[position - 1]!;
    const y = position === 0 ? 0 : request.sumY[position - 1]!;
    request.sumX[position] = (x + termX(keyX(token, base), position)) | 0;
    request.sumY[position] = (y + termY(keyY(token, base), position)) | 0;
  }

  #slotOf(request: TrackedRequest, position: number): number {
    return this.#slotIn(request.table, position);
  }

  #slotIn(blocks: readonly number[], position: number): number {
    const { blockSize } = this.#engine;
    return blocks[Math.floor(position / blockSize)]! * blockSize + (position % blockSize);
  }
}

function blockOf(position: number, { blockSize }: EngineConfig): number {
  return Math.floor(position / blockSize);
}

/** Returns the place of a request in the worker's order, or −1. `guess` is tried first. */
function placeOf(step: WorkerStep, index: number, guess: number): number {
  if (guess < step.numRequests && step.requestIndices[guess] === index) return guess;
  for (let w = 0; w < step.numRequests; w += 1) if (step.requestIndices[w] === index) return w;
  return -1;
}
