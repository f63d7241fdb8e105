/** Buffers that travel to another thread and come back. */

const SMALLEST_BYTES = 512;

/** Row buffers of a worker half that are under way at once: one per step in flight, and as many on the way back. */
const ROW_BUFFERS = 8;

/**
 * Copying into a fresh ArrayBuffer costs ten times the copy (page faults), so buffers go round:
 *
 *     take here → transferred → used there → transferred back → give
 *
 * A buffer is at least as long as was asked for. It is dropped rather than kept when `limit` buffers lie idle.
 */
export class BytePool {
  readonly #idle: ArrayBuffer[] = [];
  readonly #limit: number;

  constructor(limit: number = ROW_BUFFERS) {
    this.#limit = limit;
  }

  take(minBytes: number): ArrayBuffer {
    for (let i = this.#idle.length - 1; i >= 0; i--) {
      if (this.#idle[i]!.byteLength >= minBytes) return this.#idle.splice(i, 1)[0]!;
    }
    return new ArrayBuffer(Math.max(SMALLEST_BYTES, 2 ** Math.ceil(Math.log2(minBytes))));
  }

  give(buffer: ArrayBuffer): void {
    if (buffer.byteLength === 0) return;
    if (this.#idle.length >= this.#limit) this.#idle.shift();
    this.#idle.push(buffer);
  }
}
