/** Checks outputs of the engine: one for each request that is due, with its tokens and its end (L2, L3, L8). */

import type { EngineCoreOutput, FinishReason } from '../../contract/engine-core-output.ts';
import type { Judge } from './judge.ts';
import type { TrackedRequest } from './tracked-request.ts';

export class OutputCheck {
  readonly #maxModelLen: number;
  readonly #judge: Judge;

  constructor(maxModelLen: number, judge: Judge) {
    this.#maxModelLen = maxModelLen;
    this.#judge = judge;
  }

  /** Checks that outputs came for the requests that are due, in their order. */
  requests(outputs: readonly EngineCoreOutput[], due: readonly TrackedRequest[]): void {
    const got = outputs.map(({ requestId }) => requestId);
    const wanted = due.map(({ spec }) => spec.id);
    if (got.length === wanted.length && got.every((id, i) => id === wanted[i])) return;
    this.#judge.wrong('L3', `outputs came for [${got.join(', ')}], due were [${wanted.join(', ')}]`);
  }

  /** Checks the output of a request that was aborted or failed. */
  earlyEnd({ name }: TrackedRequest, { newTokenIds, finishReason }: EngineCoreOutput, due: FinishReason): void {
    if (newTokenIds.length === 0 && finishReason === due) return;
    this.#judge.wrong('L8', `${name} ends early with ${newTokenIds.length} tokens and "${finishReason}", not "${due}"`);
  }

  /** Takes in the tokens that a step sampled, up to the request's end. Returns the finish reason, or `null`. */
  tokens(request: TrackedRequest, sampled: readonly number[], output: EngineCoreOutput): FinishReason | null {
    const { newTokenIds, finishReason, stopReason } = output;
    let end: ReturnType<TrackedRequest['stopCheck']> = null;
    let count = 0;
    while (count < sampled.length && end === null) {
      request.tokens.push(sampled[count]!);
      count += 1;
      end = request.stopCheck(this.#maxModelLen);
    }
    if (newTokenIds.length !== count || newTokenIds.some((token, i) => token !== sampled[i])) {
      const wanted = sampled.slice(0, count);
      this.#judge.wrong('L2', `${request.name} was given tokens [${newTokenIds}], sampled were [${wanted}]`);
    }
    const due = { finish: end?.finish ?? null, stop: end?.stopReason ?? null };
    if (finishReason !== due.finish || stopReason !== due.stop) {
      const what = `${request.name} ended with ${finishReason}/${stopReason}`;
      this.#judge.wrong('L8', `${what}, due was ${due.finish}/${due.stop}`);
    }
    return due.finish;
  }
}
