/**
 * Log probabilities in vLLM's form: of each position its token and the most likely ones, as arrays `[positions, 1 + k]`
 * whose first column is the token itself. Source: `LogprobsLists` and `LogprobsTensors` of `vllm/v1/outputs.py`.
 */

import type { MessageFrames } from './wire-array.ts';

/** Of one position. */
export type TokenLogprobs = Readonly<{
  /** The token at the position, then the k most likely ones. */
  tokenIds: readonly number[];
  /** Of each of `tokenIds`. */
  logprobs: readonly number[];
  /** Of the token at the position among all tokens; 1 is the most likely. */
  rank: number;
}>;

/** NumPy's names stand in `LogprobsLists`, PyTorch's in `LogprobsTensors`. */
const NAMES = { lists: ['<i4', '<f4'], tensors: ['int32', 'float32'] } as const;

/** All positions have equally many tokens. */
export function placeLogprobs(
  frames: MessageFrames,
  form: keyof typeof NAMES,
  positions: readonly TokenLogprobs[],
): readonly unknown[] {
  const [int, float] = NAMES[form];
  const shape = [positions.length, positions[0]?.tokenIds.length ?? 0];
  return [
    frames.place({ dtype: int, shape, items: Int32Array.from(positions.flatMap(({ tokenIds }) => tokenIds)) }),
    frames.place({ dtype: float, shape, items: Float32Array.from(positions.flatMap(({ logprobs }) => logprobs)) }),
    frames.place({ dtype: int, shape: [positions.length], items: Int32Array.from(positions, ({ rank }) => rank) }),
    null,
  ];
}
