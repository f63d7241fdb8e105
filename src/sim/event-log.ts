/** What happened in a run: always hashed, and written as lines on demand (L10). */

/**
 * The log is a sequence of u32 words. Two logs are taken to be equal if their hashes are: 64 bits in two lanes, each a
 * full-avalanche step per word. Lines for a reader are made on demand and are no part of the hash.
 */
export class EventLog {
  /** Whether lines are kept. */
  readonly isTracing: boolean;
  readonly lines: string[] = [];
  #a = 0x243f_6a88 | 0;
  #b = 0x85a3_08d3 | 0;

  constructor(isTracing: boolean) {
    this.isTracing = isTracing;
  }

  word(value: number): void {
    let a = this.#a ^ value;
    a = Math.imul(a ^ (a >>> 16), 0x7feb_352d);
    a = Math.imul(a ^ (a >>> 15), 0x846c_a68b);
    this.#a = a ^ (a >>> 16);
    this.#b = (Math.imul(this.#b, 0x9e37_79b1) + (value ^ this.#a)) | 0;
    this.#b ^= this.#b >>> 13;
  }

  words(values: ArrayLike<number>, count: number = values.length): void {
    this.word(count);
    for (let i = 0; i < count; i += 1) this.word(values[i]!);
  }

  line(time: number, text: string): void {
    this.lines.push(`${String(time).padStart(6)}  ${text}`);
  }

  /** 16 hexadecimal digits. */
  get hash(): string {
    return hex(this.#a) + hex(this.#b);
  }
}

function hex(value: number): string {
  return (value >>> 0).toString(16).padStart(8, '0');
}
