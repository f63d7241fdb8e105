/** A SchedulerOutput on its way to a worker thread: one transferred ArrayBuffer of u32. */

import type { NewRequestData, SchedulerOutput } from '../../contract/scheduler-output.ts';

/**
 *     header     HEADER_LENGTH words: stepId, n, tokens, and how long the sections are
 *     requests   indices[n] │ kinds[n] │ computed[n] │ scheduled[n]
 *     blocks     blockOffsets[n+1] │ blocks │ draftOffsets[n+1] │ drafts
 *     stages     newTokenOffsets[n+1] │ new tokens       with pipeline stages only
 *     others     preempted │ finished │ captureMetadata
 *     newcomers  of each: index, flags, start, promptLen, maxTokens, numTokens │ its token ids
 *
 * Both ends go through the sections once, in this order.
 */
const HEADER_LENGTH = 10;
const NEW_REQUEST_FIELDS = 6;
/** In the header, in place of a length: there is no such section. */
const ABSENT = 0xffff_ffff;

/** Words that `writeStepMessage` needs. */
export function stepMessageLength(step: SchedulerOutput): number {
  const n = step.numRequests;
  let words = HEADER_LENGTH + 4 * n + 2 * (n + 1) + step.newBlockOffsets[n]! + step.draftOffsets[n]!;
  words += step.preemptedIndices.length + step.finishedIndices.length + (step.captureMetadata?.length ?? 0);
  if (step.newTokens !== undefined) words += n + 1 + step.newTokens.offsets[n]!;
  for (const request of step.newRequests) words += NEW_REQUEST_FIELDS + request.numTokens;
  return words;
}

export function writeStepMessage(step: SchedulerOutput, words: Uint32Array): void {
  const n = step.numRequests;
  const numBlocks = step.newBlockOffsets[n]!;
  const numDrafts = step.draftOffsets[n]!;
  words[0] = step.stepId;
  words[1] = n;
  words[2] = step.totalNumScheduledTokens;
  words[3] = numBlocks;
  words[4] = numDrafts;
  words[5] = step.preemptedIndices.length;
  words[6] = step.finishedIndices.length;
  words[7] = step.newRequests.length;
  words[8] = step.captureMetadata?.length ?? ABSENT;
  words[9] = step.newTokens?.offsets[n] ?? ABSENT;
  let at = HEADER_LENGTH;
  const put = (values: Uint32Array, length: number) => {
    words.set(values.subarray(0, length), at);
    at += length;
  };
  put(step.requestIndices, n);
  put(step.kinds, n);
  put(step.numComputedTokens, n);
  put(step.numScheduledTokens, n);
  put(step.newBlockOffsets, n + 1);
  put(step.newBlockIds, numBlocks);
  put(step.draftOffsets, n + 1);
  put(step.draftTokenIds, numDrafts);
  if (step.newTokens !== undefined) {
    put(step.newTokens.offsets, n + 1);
    put(step.newTokens.tokenIds, step.newTokens.offsets[n]!);
  }
  for (const index of step.preemptedIndices) words[at++] = index;
  for (const index of step.finishedIndices) words[at++] = index;
  if (step.captureMetadata !== null) put(step.captureMetadata, step.captureMetadata.length);
  for (const request of step.newRequests) {
    words[at++] = request.index;
    words[at++] = request.returnRoutedExperts ? 1 : 0;
    words[at++] = request.routedExpertsPromptStart;
    words[at++] = request.numPromptTokens;
    words[at++] = request.maxTokens;
    words[at++] = request.numTokens;
    put(request.tokenIds, request.numTokens);
  }
}

/**
 * The step as views into `words`: valid as long as the message is not recycled. Token ids of new requests are copied
 * out.
 */
export function readStepMessage(words: Uint32Array): SchedulerOutput {
  const n = words[1]!;
  let at = HEADER_LENGTH;
  const take = (length: number) => words.subarray(at, (at += length));
  const requestIndices = take(n);
  const kinds = take(n);
  const numComputedTokens = take(n);
  const numScheduledTokens = take(n);
  const newBlockOffsets = take(n + 1);
  const newBlockIds = take(words[3]!);
  const draftOffsets = take(n + 1);
  const draftTokenIds = take(words[4]!);
  const newTokens = words[9] === ABSENT ? {} : { newTokens: { offsets: take(n + 1), tokenIds: take(words[9]!) } };
  const preemptedIndices = Array.from(take(words[5]!));
  const finishedIndices = Array.from(take(words[6]!));
  const captureMetadata = words[8] === ABSENT ? null : take(words[8]!);
  const newRequests: NewRequestData[] = [];
  for (let i = 0; i < words[7]!; i++) {
    const [index, optedIn, routedExpertsPromptStart, numPromptTokens, maxTokens, numTokens] = take(NEW_REQUEST_FIELDS);
    newRequests.push({
      index: index!,
      returnRoutedExperts: optedIn === 1,
      routedExpertsPromptStart: routedExpertsPromptStart!,
      numPromptTokens: numPromptTokens!,
      maxTokens: maxTokens!,
      numTokens: numTokens!,
      tokenIds: take(numTokens!).slice(),
    });
  }
  return {
    stepId: words[0]!,
    numRequests: n,
    totalNumScheduledTokens: words[2]!,
    requestIndices,
    kinds,
    numComputedTokens,
    numScheduledTokens,
    newBlockIds,
    newBlockOffsets,
    draftTokenIds,
    draftOffsets,
    ...newTokens,
    newRequests,
    preemptedIndices,
    finishedIndices,
    captureMetadata,
  };
}
