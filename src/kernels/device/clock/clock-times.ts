/** What each thing takes on the `clock` device, and how that is written. */

import type { ClockTimes } from '../../../contract/config.ts';
import { RoutedExpertsError } from '../../../contract/errors.ts';

/**
 * Near gpt-oss-120b on one H100. A step of 4 decodes takes 7.8 ms: 511 tokens/s for 4 requests at once
 * (https://www.millstoneai.com/inference-benchmark/gpt-oss-120b-mxfp4). A token more takes 60 µs: 16 to 17 thousand
 * tokens/s, nearly all of them of prompts, under vLLM 0.10.2
 * (https://docs.gpustack.ai/latest/performance-lab/gpt-oss-120b/h100). A copy: measured from submission to the end of
 * the map, 576 B take 0.04 ms and 16 MB 0.43 ms.
 */
export const DEFAULT_CLOCK_TIMES: ClockTimes = { stepMs: 7.6, perTokenUs: 60, copyLatencyMs: 0.04, copyGBPerS: 40 };

/** Of a forward pass. */
export type StepTime = Pick<ClockTimes, 'stepMs' | 'perTokenUs'>;

const MAX_STEP_MS = 60_000;
const MAX_PER_TOKEN_US = 1e6;
const STEP_TIME = /^(\d+(?:\.\d+)?) ?ms(?: ?\+ ?(\d+(?:\.\d+)?) ?[uµμ]s(?: per token)?)?$/;

/** Reads `7.6 ms + 60 µs per token`; the second half may be left out. Throws BAD_VALUE. */
export function parseStepTime(text: string): StepTime {
  const match = STEP_TIME.exec(text.trim());
  const stepMs = Number(match?.[1]);
  const perTokenUs = Number(match?.[2] ?? 0);
  const isInRange = stepMs <= MAX_STEP_MS && perTokenUs <= MAX_PER_TOKEN_US;
  if (match !== null && isInRange && stepMs + perTokenUs > 0) return { stepMs, perTokenUs };
  const wanted = `"<ms> ms + <µs> us per token", as in "7.6 ms + 60 us per token"`;
  const limits = `at most ${MAX_STEP_MS} ms and ${MAX_PER_TOKEN_US} us, and not nothing at all`;
  throw RoutedExpertsError.of('BAD_VALUE', 'step time', text, `${wanted}: ${limits}`);
}

export function stepTimeText({ stepMs, perTokenUs }: StepTime): string {
  return perTokenUs === 0 ? `${stepMs} ms` : `${stepMs} ms + ${perTokenUs} µs per token`;
}
