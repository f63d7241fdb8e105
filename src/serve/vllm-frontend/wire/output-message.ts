/** What the engine says to a frontend, or to the coordinator: frames `[body, buffers…]`. */

import type { FinishReason, PrefillStatistics } from '../../../contract/engine-core-output.ts';
import type { RoutedRows } from '../../../contract/routed-rows.ts';
import type { UtilityCall } from './frontend-message.ts';
import { pack } from './msgpack.ts';
import { outputArray, outputsArray } from './vllm-layout.ts';
import { MessageFrames, rowsArray } from './wire-array.ts';
import { placeLogprobs, type TokenLogprobs } from './wire-logprobs.ts';

/** One raw frame: the only sign of an engine's death. */
export const ENGINE_CORE_DEAD: Uint8Array = Buffer.from('ENGINE_CORE_DEAD');

/** When a request came, and when the step began that brought its first token; in seconds. */
export type FirstTimes = Readonly<{ queued: number; scheduled: number }>;

/** What is new of one request. */
export type WireOutput = Readonly<{
  requestId: string;
  newTokenIds: readonly number[];
  finishReason: FinishReason | null;
  stopReason: number | null;
  rows: RoutedRows | null;
  logprobs: readonly TokenLogprobs[] | null;
  promptLogprobs: readonly TokenLogprobs[] | null;
  /** With the first token. */
  prefill: PrefillStatistics | null;
  times: FirstTimes | null;
  kvTransferParams: Readonly<Record<string, unknown>> | null;
}>;

/** Of one step, or of less. Of the optional ones what is absent is null on the wire. */
export type OutputsMessage = Readonly<{
  engineIndex: number;
  /** Seconds of a clock that does not jump. */
  timestamp: number;
  outputs?: readonly WireOutput[];
  stats?: Readonly<Record<string, unknown>> | null;
  finishedRequests?: readonly string[] | null;
  startWave?: number;
}>;

/** A reply: the result of a call, or why there is none. */
export type UtilityReply = Readonly<{ callId: UtilityCall['callId'] }> &
  (Readonly<{ result: unknown }> | Readonly<{ failure: string }>);

const FINISH_REASONS: Readonly<Record<FinishReason, number>> = { stop: 0, length: 1, abort: 2, error: 3 };
const EVENTS = { queued: 1, scheduled: 2 } as const;

/** `numExperts`: of the model whose rows these are. */
export function encodeOutputs(message: OutputsMessage, numExperts: number): Uint8Array[] {
  const { engineIndex, timestamp, outputs = [], stats = null, finishedRequests = null, startWave } = message;
  const frames = new MessageFrames();
  const body = pack(
    outputsArray({
      engine_index: engineIndex,
      outputs: outputs.map((output) => outputItems(output, frames, numExperts)),
      scheduler_stats: stats,
      timestamp,
      finished_requests: finishedRequests,
      start_wave: startWave,
    }),
  );
  return [body, ...frames.frames];
}

/** A message with a reply has nothing else: vLLM would not read it. */
export function encodeReply(engineIndex: number, timestamp: number, reply: UtilityReply): Uint8Array[] {
  const items = 'failure' in reply ? [reply.callId, reply.failure, null] : [reply.callId, null, [null, reply.result]];
  return [pack(outputsArray({ engine_index: engineIndex, outputs: [], timestamp, utility_output: items }))];
}

function outputItems(output: WireOutput, frames: MessageFrames, numExperts: number): unknown[] {
  const { rows, logprobs, promptLogprobs, prefill, times, finishReason } = output;
  // Numbered in the order of the fields.
  const newLogprobs = logprobs && placeLogprobs(frames, 'lists', logprobs);
  const newPromptLogprobs = promptLogprobs && placeLogprobs(frames, 'tensors', promptLogprobs);
  return outputArray({
    request_id: output.requestId,
    new_token_ids: output.newTokenIds,
    new_logprobs: newLogprobs,
    new_prompt_logprobs_tensors: newPromptLogprobs,
    finish_reason: finishReason && FINISH_REASONS[finishReason],
    stop_reason: output.stopReason,
    events: times && [
      { type: EVENTS.queued, timestamp: times.queued },
      { type: EVENTS.scheduled, timestamp: times.scheduled },
    ],
    kv_transfer_params: output.kvTransferParams,
    prefill_stats: prefill && prefillMap(prefill),
    // Parts without a row cannot be joined.
    routed_experts: rows === null || rows.count === 0 ? null : frames.place(rowsArray(rows, numExperts)),
    num_nans_in_logits: 0,
  });
}

function prefillMap({ numPromptTokens, numCachedTokens }: PrefillStatistics): Readonly<Record<string, number>> {
  const numComputedTokens = numPromptTokens - numCachedTokens;
  return {
    num_prompt_tokens: numPromptTokens,
    num_computed_tokens: numComputedTokens,
    num_cached_tokens: numCachedTokens,
    num_local_cached_tokens: numCachedTokens,
    num_external_cached_tokens: 0,
    num_cache_creation_tokens: 0,
  };
}
