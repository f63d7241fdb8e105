/** Token ids that are a pure function of a seed and a name. */

import type { Random } from './random.ts';

/**
 * Fills `tokens[from, to)` with the text numbered `id`: its first token is `id mod vocabSize`, the others come from
 * `random`. Texts with neighbouring numbers thus differ at once, and not only with high probability.
 */
export function writeText(
  tokens: Uint32Array,
  from: number,
  to: number,
  id: number,
  random: Random,
  vocabSize: number,
): void {
  if (from < to) tokens[from] = id % vocabSize;
  for (let position = from + 1; position < to; position++) tokens[position] = random.below(vocabSize);
}

/** A text of its own, see `writeText`. */
export function text(length: number, id: number, random: Random, vocabSize: number): Uint32Array {
  const tokens = new Uint32Array(length);
  writeText(tokens, 0, length, id, random, vocabSize);
  return tokens;
}

/** One text after the other. */
export function concatenate(parts: readonly Uint32Array[]): Uint32Array {
  const tokens = new Uint32Array(parts.reduce((sum, part) => sum + part.length, 0));
  let position = 0;
  for (const part of parts) {
    tokens.set(part, position);
    position += part.length;
  }
  return tokens;
}
