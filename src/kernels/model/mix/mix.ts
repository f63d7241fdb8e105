/**
 * The hash functions that stand in for a transformer: `mix.wgsl` in TypeScript, bit for bit. Every function takes and
 * returns 32-bit patterns as *signed* numbers, which the JIT keeps in registers; a caller that needs the unsigned value
 * writes `x >>> 0`.
 *
 *     token, position ──► key ──► term ──► Σ over positions ≤ own, wrapping ──► hidden ──► next token
 *                                                                                    └───► gate inputs of each layer
 *
 * The position enters key and term, so that a permuted block table changes the sum.
 * A key and a hidden state have two lanes, x and y.
 */

/** Full-avalanche permutation of 32 bits ("lowbias32", https://nullprogram.com/blog/2018/07/31/). */
export function scramble(value: number): number {
  let x = value;
  x = Math.imul(x ^ (x >>> 16), 0x7feb352d);
  x = Math.imul(x ^ (x >>> 15), 0x846ca68b);
  return x ^ (x >>> 16);
}

/** What position and epoch add to a key; epoch 0 is the deterministic mode. */
export function keyBase(position: number, epoch: number): number {
  return scramble(position + Math.imul(epoch, 0x9e3779b1));
}

export function keyX(token: number, base: number): number {
  return scramble(token ^ base);
}

export function keyY(token: number, base: number): number {
  return scramble(Math.imul(token, 0x85ebca6b) + base);
}

/** What the key read at `position` adds to the sum. */
export function termX(x: number, position: number): number {
  return scramble(x + Math.imul(position, 0x9e3779b1));
}

export function termY(y: number, position: number): number {
  return scramble(y ^ Math.imul(position, 0xc2b2ae35));
}

export function hiddenX(sumX: number): number {
  return scramble(sumX ^ 0x243f6a88);
}

export function hiddenY(sumY: number, x: number): number {
  return scramble(sumY + x);
}

/**
 * What a pipeline stage goes on with where the hidden state that it received is not the one that its own keys give:
 * neither of the two, so that the difference shows in tokens and rows behind it.
 */
export function foldedX(received: number, own: number): number {
  return scramble(received ^ Math.imul(own, 0x9e3779b1) ^ 0x13198a2e);
}

export function foldedY(received: number, own: number): number {
  return scramble((received + Math.imul(own, 0x85ebca6b)) ^ 0x243f6a88);
}

/** The next token in `[0, vocabSize)`. */
export function nextToken(x: number, y: number, vocabSize: number): number {
  return (scramble(x ^ Math.imul(y, 0x9e3779b1)) >>> 0) % vocabSize;
}

/**
 * The draft proposed where `truth` would be sampled from hidden state `(x, y)`: another token if the state's hash is
 * below `wrongBelow`. So whether a draft is right depends on its prefix alone.
 */
export function draftToken(x: number, y: number, truth: number, vocabSize: number, wrongBelow: number): number {
  const dice = scramble(y ^ Math.imul(x, 0x85ebca6b)) >>> 0;
  if (dice >= wrongBelow) return truth;
  return (truth + 1 + (dice % (vocabSize - 1))) % vocabSize;
}

/** Start of the chain of gate inputs of one token at one layer. */
export function gateSeed(x: number, y: number, layer: number): number {
  return scramble(x + Math.imul(layer + 1, 0x9e3779b1)) ^ y;
}

/** The `chunk`-th word of gate inputs: eight nibbles, lowest first; a nibble n stands for the input n − 8. */
export function gateWord(seed: number, chunk: number): number {
  return scramble(seed + Math.imul(chunk + 1, 0xc2b2ae35));
}

/** The `word`-th eight gate weights of a model, packed like gate inputs. */
export function weightWord(word: number): number {
  return scramble(Math.imul(word + 1, 0x85ebca6b) ^ 0x13198a2e);
}
