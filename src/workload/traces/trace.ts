/** From the lines of a request trace to a workload: scaling of lengths, tokens of prompts, arrival offsets. */

import { RoutedExpertsError } from '../../contract/errors.ts';
import {
  MAX_PROMPT_TOKENS,
  MAX_REQUESTS,
  numberWithin,
  positiveNumber,
  seedNumber,
  vocabularySize,
  wholeNumber,
} from '../checks.ts';
import { wholeLength } from '../lengths.ts';
import { random } from '../random.ts';
import { text, writeText } from '../tokens.ts';
import { speedUp } from '../workload.ts';
import type { Workload, WorkloadRequest } from '../workload.ts';

/** Tokens that one hash id of a trace stands for. */
export const TRACE_BLOCK_TOKENS = 512;

export type TraceOptions = Readonly<{
  /** Chooses the token ids. Lengths, sharing and arrivals are the trace's own. */
  seed: number;
  /** Token ids are below this. */
  vocabSize: number;
  /** Take the first so many requests, ≥ 1; all of them if absent. Lines behind them are not looked at. */
  requests?: number | undefined;
  /** Divide lengths by this, ≥ 1; 1 if absent. What prompts share, they share still. */
  scaleLengths?: number | undefined;
  /** Divide arrival times by this, > 0; 1 if absent. */
  speedup?: number | undefined;
}>;

/** One line of a trace. */
export type TraceEntry = Readonly<{
  /** Milliseconds, from any origin. */
  timestampMs: number;
  /** Tokens, ≥ 1. */
  inputLength: number;
  /** Tokens, ≥ 1. */
  outputLength: number;
  /**
   * One id per 512 tokens of the prompt, the last block may be short: equal ids = equal prefixes. `null`: nothing is
   * shared.
   */
  hashIds: readonly number[] | null;
}>;

/** @throws BAD_VALUE, naming the option, its value and its limit */
export function checkTraceOptions(options: TraceOptions): void {
  seedNumber(options.seed);
  vocabularySize(options.vocabSize);
  if (options.requests !== undefined) wholeNumber('requests', options.requests, 1, MAX_REQUESTS);
  if (options.scaleLengths !== undefined) numberWithin('scaleLengths', options.scaleLengths, 1);
  if (options.speedup !== undefined) positiveNumber('speedup', options.speedup);
}

/**
 * Tokens of a prompt made of hashed blocks. Equal ids give equal tokens; the first token of a block is its id mod
 * vocabSize.
 *
 * Scaled by 1/N, block k covers the positions from `round(512·k/N)` up to `round(512·(k+1)/N)`: it begins at the same
 * place in every prompt, so prompts that share their first c ids share `round(512·c/N)` tokens (or all of the shorter
 * one), whether N divides 512 or not. Above N = 512 some blocks vanish.
 */
function blockPrompt(ids: readonly number[], length: number, divisor: number, options: TraceOptions): Uint32Array {
  const tokens = new Uint32Array(length);
  let from = 0;
  ids.forEach((id, block) => {
    const isLast = block === ids.length - 1;
    const to = isLast ? length : Math.min(length, Math.round((TRACE_BLOCK_TOKENS * (block + 1)) / divisor));
    const { seed, vocabSize } = options;
    if (from < to) writeText(tokens.subarray(from, to), { id, random: random(seed, `trace/block/${id}`), vocabSize });
    from = to;
  });
  return tokens;
}

/** `file` names the trace in errors, `name` in reports. */
export type Trace = Readonly<{ file: string; name: string; entries: readonly TraceEntry[] }>;

/**
 * Makes the workload of a trace's lines, in their order. The earliest arrival is at 0 ms.
 *
 * @throws BAD_VALUE for an option out of range; BAD_FILE if `entries` is empty or its prompts would not fit in memory
 */
export function traceWorkload({ file, name, entries }: Trace, options: TraceOptions): Workload {
  checkTraceOptions(options);
  const { seed, vocabSize } = options;
  const divisor = options.scaleLengths ?? 1;
  const taken = entries.slice(0, options.requests ?? entries.length);
  if (taken.length === 0) throw RoutedExpertsError.of('BAD_FILE', file, 'the trace has no requests');
  const promptTokens = taken.reduce((sum, entry) => sum + wholeLength(entry.inputLength / divisor), 0);
  if (promptTokens > MAX_PROMPT_TOKENS) {
    const problem =
      `its prompts have ${promptTokens} tokens, at most ${MAX_PROMPT_TOKENS} are held at once; take ` +
      'fewer requests or scale the lengths down';
    throw RoutedExpertsError.of('BAD_FILE', file, problem);
  }
  const firstMs = taken.reduce((earliest, entry) => Math.min(earliest, entry.timestampMs), Infinity);
  const requests = taken.map((entry, number): WorkloadRequest => {
    const length = wholeLength(entry.inputLength / divisor);
    return {
      requestId: `trace-${number}`,
      promptTokenIds:
        entry.hashIds === null
          ? text(length, { id: number, random: random(seed, `trace/prompt/${number}`), vocabSize })
          : blockPrompt(entry.hashIds, length, divisor, options),
      maxTokens: wholeLength(entry.outputLength / divisor),
      priority: 0,
      arrivalMs: entry.timestampMs - firstMs,
      cacheSalt: null,
    };
  });
  return speedUp({ name, requests, minConcurrency: 1 }, options.speedup ?? 1);
}
