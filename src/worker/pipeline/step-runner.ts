/**
 * Turns a scheduler's step into device commands, and the bytes read back into the step's output. It is synchronous: the
 * step pipeline calls it when a step can begin and when its bytes have arrived.
 */

import type { CaptureWorkerHalf, DeviceRange } from '../../contract/capture.ts';
import { otherRows, rowsSeen, type HookPlace } from './dispatched-rows.ts';
import { rowsOfRank, SINGLE_RANK } from './hook-layout.ts';
import type { EngineConfig } from '../../contract/config.ts';
import type { CommandRecorder, Device, DeviceBuffer } from '../../contract/device.ts';
import { RoutedExpertsError } from '../../contract/errors.ts';
import type { ModelRunnerOutput } from '../../contract/model-runner-output.ts';
import { PLACEHOLDER_TOKEN, type SchedulerOutput } from '../../contract/scheduler-output.ts';
import type { ForwardPass } from '../../kernels/model/forward-pass.ts';
import { FROM_DEVICE, StepInput } from '../../kernels/model/step-input.ts';
import { DUMMY_STEP } from './lockstep/activity-board.ts';
import { PersistentBatch, type BatchEntry } from './persistent-batch.ts';
import { StepFrames, type StepFrame } from './step-frame.ts';

export type StepRunnerOptions = Readonly<{
  engine: EngineConfig;
  device: Device;
  forward: ForwardPass;
  capture: CaptureWorkerHalf | null;
  /** Among other data-parallel engines; absent = there are none. */
  place?: HookPlace;
  /** Of a pipeline stage: layers with a router in the stages before it; absent = 0. */
  firstLayer?: number;
}>;

/** Words of a hidden state on the device: of these the first two are sent to the next stage. */
const HIDDEN_WORDS = 4;
type ByteRange = Readonly<{ buffer: DeviceBuffer; byteLength: number }>;

const ALONE: HookPlace = { ranks: SINGLE_RANK, dispatch: 'modular' };
/** Of a dummy pass. */
export const DUMMY_ROWS = 1;

/**
 *     begin ─▶ frame ─▶ submit ─▶ … the device runs, other steps may begin … ─▶ collect ─▶ output
 */
export class StepRunner {
  readonly #engine: EngineConfig;
  readonly #device: Device;
  readonly #forward: ForwardPass;
  readonly #capture: CaptureWorkerHalf | null;
  readonly #input: StepInput;
  readonly #batch: PersistentBatch;
  readonly #frames: StepFrames;
  /** For each batch slot the request of the step being prepared: its place in the scheduler's step, or −1. */
  readonly #placeOfSlot: Int32Array;
  readonly #place: HookPlace;
  readonly #firstLayer: number;
  /** Of `routedExperts`. */
  readonly #rowBytes: number;
  /** Where a shard of rows is read; `null`: the rank routes all rows. */
  readonly #shards: DeviceBuffer | null;

  constructor({ engine, device, forward, capture, place = ALONE, firstLayer = 0 }: StepRunnerOptions) {
    this.#engine = engine;
    this.#device = device;
    this.#forward = forward;
    this.#capture = capture;
    this.#input = new StepInput(forward.shape);
    this.#batch = new PersistentBatch(engine, forward.shape.maxBlocksPerSeq);
    this.#frames = new StepFrames(engine);
    this.#place = place;
    this.#firstLayer = firstLayer;
    this.#rowBytes = 4 * forward.shape.numLayers * forward.shape.topK;
    const shard = forward.shard?.routedExperts ?? null;
    this.#shards = shard === null ? null : device.createBuffer('shards', shard.byteLength, 'readback');
    this.#placeOfSlot = new Int32Array(engine.maxNumSeqs).fill(-1);
  }

  /** Requests that the worker remembers. */
  get numEntries(): number {
    return this.#batch.size;
  }

  /** Bytes that a readback buffer needs for any step's results. */
  get maxResultBytes(): number {
    const { sampled, hidden, stage, rows } = this.#forward;
    return (stage.sends ? hidden : sampled).byteLength + (rows?.pack.packed.byteLength ?? 0);
  }

  /**
   * Updates the persistent batch and uploads the step's input. `null`: the step runs nothing. `epoch`: see
   * `StepInput.begin`. `rowsOfEngines`: what the pass of each data-parallel engine runs.
   */
  begin(step: SchedulerOutput, epoch: number, rowsOfEngines: readonly number[]): StepFrame | null {
    this.#batch.forget(step.finishedIndices);
    this.#batch.forget(step.preemptedIndices);
    this.#capture?.forget?.(step.finishedIndices, step.preemptedIndices);
    if (step.numRequests === 0) return null;
    const frame = this.#frames.take();
    this.#prepare(step, frame, epoch, rowsOfEngines);
    return frame;
  }

  /** Uploads the input of a pass without a request. No half hears of it, and nothing of it is collected. */
  beginDummy(rowsOfEngines: readonly number[]): StepFrame {
    const frame = this.#frames.take();
    frame.isDummy = true;
    frame.shardRows = 0;
    frame.firstOrdinal = 0;
    frame.step.stepId = DUMMY_STEP;
    frame.step.numRequests = 0;
    frame.step.numTokens = DUMMY_ROWS;
    const { before, behind } = otherRows(this.#place, rowsOfEngines);
    const numRows = before + DUMMY_ROWS + behind;
    this.#input.begin(numRows, this.#numPaddingRequests(numRows), 0);
    this.#addPadding(numRows);
    this.#input.end();
    this.#forward.upload(this.#input);
    return frame;
  }

  /** Gives the frame of a dummy pass back. */
  endDummy(frame: StepFrame): void {
    frame.isDummy = false;
    this.#frames.give(frame);
  }

  /** Uploads the hidden states of the step that is begun next. Throws INVARIANT if they are not those of `numRows`. */
  receive(hidden: Uint32Array, numRows: number): void {
    if (hidden.length !== 2 * numRows) {
      const what = `hidden states of ${hidden.length / 2} tokens came for a step of ${numRows}`;
      throw RoutedExpertsError.of('INVARIANT', what);
    }
    this.#forward.receive(hidden);
  }

  /** What a stage sends on of a step: `[numTokens, 2]`. */
  hiddenOf({ step }: StepFrame, bytes: Uint8Array): Uint32Array<ArrayBuffer> {
    const states = new Uint32Array(bytes.buffer, bytes.byteOffset, HIDDEN_WORDS * step.numTokens);
    const sent = new Uint32Array(2 * step.numTokens);
    for (let row = 0; row < step.numTokens; row++) {
      sent[2 * row] = states[HIDDEN_WORDS * row]!;
      sent[2 * row + 1] = states[HIDDEN_WORDS * row + 1]!;
    }
    return sent;
  }

  /**
   * Submits forward pass, capture and copies into `target` as one command buffer. Returns how many bytes to read from
   * `target`.
   */
  submit(frame: StepFrame, target: DeviceBuffer): number {
    const { sampled, sampledLayout, hidden, stage } = this.#forward;
    frame.sampledBytes = stage.sends
      ? 4 * HIDDEN_WORDS * frame.step.numTokens
      : sampledLayout.byteLength(Math.max(1, frame.firstOrdinal + frame.step.numRequests));
    frame.rowBytes = 0;
    this.#device.submit((commands) => {
      this.#forward.record(commands, this.#input, frame.step.numTokens);
      commands.copy(stage.sends ? hidden : sampled, 0, target, 0, frame.sampledBytes);
      if (frame.shardRows > 0) {
        const { buffer, byteLength } = this.endOfPass(frame, target);
        commands.copy(this.#forward.shard!.routedExperts, 0, buffer, 0, byteLength);
      } else if (!frame.isDummy) this.#recordRows(frame, target, commands);
    });
    return frame.sampledBytes + frame.rowBytes;
  }

  /** What can be read when the pass has run: what the rank has routed alone, for its engine's others, if it has. */
  endOfPass({ shardRows, sampledBytes }: StepFrame, target: DeviceBuffer): ByteRange {
    if (shardRows > 0) return { buffer: this.#shards!, byteLength: shardRows * this.#rowBytes };
    return { buffer: target, byteLength: sampledBytes };
  }

  /** The shards of all ranks, one behind the other: the step's rows, and padding behind them. */
  takeGathered(frame: StepFrame, gathered: Uint32Array, target: DeviceBuffer): void {
    const ownWords = (frame.step.numTokens * this.#rowBytes) / 4;
    this.#device.write(this.#forward.routedExperts, 0, gathered.subarray(0, ownWords));
    this.#device.submit((commands) => this.#recordRows(frame, target, commands));
  }

  #recordRows(frame: StepFrame, target: DeviceBuffer, commands: CommandRecorder): void {
    const rows: DeviceRange | null = this.#capture?.record(frame.step, commands) ?? null;
    frame.rowBytes = rows?.byteLength ?? 0;
    if (rows !== null) commands.copy(rows.buffer, rows.byteOffset ?? 0, target, frame.sampledBytes, rows.byteLength);
  }

  /** Makes the step's output from the bytes that `submit` announced, and gives the frame back. */
  collect(frame: StepFrame, bytes: Uint8Array): ModelRunnerOutput {
    const { step, firstOrdinal, sampledBytes, rowBytes } = frame;
    const { sampledLayout, stage } = this.#forward;
    const { numSpeculativeTokens, asyncScheduling } = this.#engine;
    const n = step.numRequests;
    const words = new Uint32Array(bytes.buffer, bytes.byteOffset, sampledBytes / 4);
    const counts = new Uint32Array(n);
    const sampledOffsets = new Uint32Array(n + 1);
    const sampledTokenIds = new Uint32Array(n * (numSpeculativeTokens + 1));
    const drafts = numSpeculativeTokens > 0 && !asyncScheduling ? newDrafts(n, numSpeculativeTokens) : null;
    let numSampled = 0;
    let numDrafts = 0;
    for (let i = 0; i < n; i++) {
      const count = stage.sends ? 0 : sampledLayout.count(words, firstOrdinal + i);
      counts[i] = count;
      const tokensAt = sampledLayout.tokensAt(firstOrdinal + i);
      for (let t = 0; t < count; t++) sampledTokenIds[numSampled++] = words[tokensAt + t]!;
      sampledOffsets[i + 1] = numSampled;
      const refused = step.draftCounts[i]! + 1 - count;
      if (count > 0 && refused > 0) this.#batch.rollBack(step.requestIndices[i]!, refused);
      if (drafts === null) continue;
      const draftsAt = sampledLayout.draftsAt(firstOrdinal + i);
      for (let t = 0; t < (count > 0 ? numSpeculativeTokens : 0); t++) {
        drafts.tokenIds[numDrafts++] = words[draftsAt + t]!;
      }
      drafts.offsets[i + 1] = numDrafts;
    }
    const rows = rowBytes > 0 ? bytes.subarray(sampledBytes, sampledBytes + rowBytes) : null;
    const deltas = this.#capture?.collect(step, rows, counts) ?? null;
    const output: ModelRunnerOutput = {
      stepId: step.stepId,
      numRequests: n,
      requestIndices: step.requestIndices.slice(0, n),
      sampledTokenIds,
      sampledOffsets,
      drafts,
      routedExpertDeltas: deltas && this.#firstLayer > 0 ? { ...deltas, firstLayer: this.#firstLayer } : deltas,
    };
    this.#frames.give(frame);
    return output;
  }

  /** Fills the frame and the device's step input; requests run in the order of their batch slots. */
  #prepare(step: SchedulerOutput, frame: StepFrame, epoch: number, rowsOfEngines: readonly number[]): void {
    const input = this.#input;
    const { step: out, order } = frame;
    const n = step.numRequests;
    const numTokens = step.totalNumScheduledTokens;
    const { before, behind } = otherRows(this.#place, rowsOfEngines);
    const numRowsSeen = before + numTokens + behind;
    frame.rowsBefore = before;
    frame.firstOrdinal = this.#numPaddingRequests(before);
    const numRequests = frame.firstOrdinal + n + this.#numPaddingRequests(behind);
    input.begin(numRowsSeen, numRequests, step.newBlockOffsets[n]!, epoch);
    this.#batch.admit(step, (batchSlot, blockOrdinal, blockId) =>
      input.addTableUpdate(batchSlot, blockOrdinal, blockId),
    );
    const places = this.#placeOfSlot;
    for (let i = 0; i < n; i++) places[this.#batch.get(step.requestIndices[i]!).slot] = i;
    for (let slot = 0, i = 0; i < n && slot < places.length; slot++) {
      const place = places[slot]!;
      if (place < 0) continue;
      places[slot] = -1;
      order[i++] = place;
    }

    out.stepId = step.stepId;
    out.numRequests = n;
    out.numTokens = numTokens;
    const seen = { numRowsSeen: rowsSeen(this.#place, numRowsSeen), rowsPerRank: rowsOfEngines, numTokens };
    const own = rowsOfRank(this.#place.ranks, seen);
    out.firstRow = own.firstRow;
    // Read when the step's results arrive, and the engine's array is reused by then.
    out.captureMetadata = step.captureMetadata?.slice() ?? null;
    this.#addPadding(before);
    for (let i = 0; i < n; i++) this.#addRequest(step, order[i]!, frame, i);
    this.#addPadding(behind);
    const isWanted = this.#capture !== null && (this.#place.capturesAll || out.optedIn.subarray(0, n).includes(1));
    frame.shardRows = own.kind === 'all-gather' && isWanted ? seen.numRowsSeen : 0;
    input.end();
    this.#forward.upload(input);
    // A half may read it when the results arrive; the step input belongs to the next step by then.
    out.slotMapping.set(input.slotMapping.subarray(before, before + numTokens));
  }

  /** Requests that hold rows of no request of this rank: of a block at most, so that none reads another's KV. */
  #numPaddingRequests(numRows: number): number {
    return Math.ceil(numRows / this.#engine.blockSize);
  }

  /** Rows of other engines, and padding. Their KV goes to the null block, and nothing is sampled for them. */
  #addPadding(numRows: number): void {
    const { blockSize } = this.#engine;
    for (let left = numRows; left > 0; left -= blockSize) {
      const count = Math.min(left, blockSize);
      const row = this.#input.addRequest(0, 0, count, 0, false);
      for (let t = 0; t < count; t++) {
        this.#input.setToken(row + t, row + t);
        this.#input.setSlot(row + t, t);
      }
    }
  }

  #addRequest(step: SchedulerOutput, position: number, { step: out, rowsBefore }: StepFrame, i: number): void {
    const input = this.#input;
    const entry = this.#batch.get(step.requestIndices[position]!);
    const { data } = entry;
    const count = step.numScheduledTokens[position]!;
    const firstDraft = step.draftOffsets[position]!;
    const numDrafts = step.draftOffsets[position + 1]! - firstDraft;
    const start = this.#startOf(step, position, entry);
    const firstDraftAt = start + count - numDrafts;
    const row = input.addRequest(entry.slot, start, count, numDrafts, firstDraftAt >= data.numTokens);

    for (let t = 0; t < count; t++) {
      const at = start + t;
      let token = FROM_DEVICE;
      if (at < data.numTokens) {
        token = data.tokenIds[at]!;
      } else if (at >= firstDraftAt) {
        const draft = step.draftTokenIds[firstDraft + at - firstDraftAt]!;
        if (draft !== PLACEHOLDER_TOKEN) token = draft;
      } else if (step.newTokens !== undefined) {
        token = step.newTokens.tokenIds[step.newTokens.offsets[position + 1]! - (firstDraftAt - at)]!;
      }
      input.setToken(row + t, token);
      input.setSlot(row + t, this.#batch.slotOf(entry, at));
    }
    entry.numComputedTokens = start + count;
    out.requestIndices[i] = data.index;
    out.tokenStarts[i] = start;
    out.tokenCounts[i] = count;
    out.draftCounts[i] = numDrafts;
    out.rowStarts[i] = out.firstRow + row - rowsBefore;
    out.optedIn[i] = data.returnRoutedExperts ? 1 : 0;
    out.promptStarts[i] = data.routedExpertsPromptStart;
    out.numPromptTokens[i] = data.numPromptTokens;
    out.maxTokens[i] = data.maxTokens;
  }

  /** The scheduler counts drafts in flight as computed until their output arrives; the worker knows which stand. */
  #startOf(step: SchedulerOutput, position: number, entry: BatchEntry): number {
    const isOptimistic = this.#engine.numSpeculativeTokens > 0 && this.#engine.asyncScheduling;
    return isOptimistic ? entry.numComputedTokens : step.numComputedTokens[position]!;
  }
}

function newDrafts(numRequests: number, mostDrafts: number): NonNullable<ModelRunnerOutput['drafts']> {
  return { tokenIds: new Uint32Array(numRequests * mostDrafts), offsets: new Uint32Array(numRequests + 1) };
}

/** The output of a step that runs nothing. */
export function emptyOutput(stepId: number): ModelRunnerOutput {
  return {
    stepId,
    numRequests: 0,
    requestIndices: new Uint32Array(0),
    sampledTokenIds: new Uint32Array(0),
    sampledOffsets: new Uint32Array(1),
    drafts: null,
    routedExpertDeltas: null,
  };
}
