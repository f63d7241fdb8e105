/** Token ids that are a pure function of a seed and a name. */

import type { Random } from './random.ts';

type TextSource = Readonly<{ id: number; random: Random; vocabSize: number }>;

/**
 * Fills `tokens` with the text numbered `id`: its first token is `id mod vocabSize`, the others come from `random`.
 * Texts with neighbouring numbers thus differ at once, and not only with high probability.
 */
export function writeText(tokens: Uint32Array, { id, random, vocabSize }: TextSource): void {
  if (tokens.length > 0) tokens[0] = id % vocabSize;
  for (let position = 1; position < tokens.length; position++) tokens[position] = random.below(vocabSize);
}

/** Makes a text, see `writeText`. */
export function text(length: number, source: TextSource): Uint32Array {
  const tokens = new Uint32Array(length);
  writeText(tokens, source);
  return tokens;
}

/** Returns the parts one after the other. */
export function concatenate(parts: readonly Uint32Array[]): Uint32Array {
  const tokens = new Uint32Array(parts.reduce((sum, part) => sum + part.length, 0));
  let position = 0;
  for (const part of parts) {
    tokens.set(part, position);
    position += part.length;
  }
  return tokens;
}
