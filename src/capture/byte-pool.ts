/** Buffers that travel to another thread and come back. */

/**
 * Copying into a fresh ArrayBuffer costs ten times the copy (page faults), so buffers go round: `take` here →
 * transferred → used there → transferred back → `give`. A buffer is at least `minBytes` long; it is dropped rather than
 * kept when `limit` lie idle.
 */
export class BytePool {
  readonly #idle: ArrayBuffer[] = [];
  readonly #limit: number;

  constructor(limit: number) {
    this.#limit = limit;
  }

  take(minBytes: number): ArrayBuffer {
    for (let i = this.#idle.length - 1; i >= 0; i--) {
      if (this.#idle[i]!.byteLength >= minBytes) return this.#idle.splice(i, 1)[0]!;
    }
    return new ArrayBuffer(roundUpToPowerOfTwo(minBytes));
  }

  give(buffer: ArrayBuffer): void {
    if (buffer.byteLength === 0) return;
    if (this.#idle.length >= this.#limit) this.#idle.shift();
    this.#idle.push(buffer);
  }

  get idleCount(): number {
    return this.#idle.length;
  }
}

const SMALLEST = 4096;

function roundUpToPowerOfTwo(bytes: number): number {
  return Math.max(SMALLEST, 2 ** Math.ceil(Math.log2(Math.max(1, bytes))));
}
