/** A reversible byte-level tokenizer for models that have a vocabulary size and no vocabulary. */

/**
 * A byte is one token where the vocabulary has room for 256 of them, else two (its upper and lower half):
 *
 *     vocabulary    0 ───────── 255 │ 256 ──────── vocabSize     `wide`:   byte b is token b
 *                   0 ── 15 │ 16 ───────────────── vocabSize     `narrow`: byte b is tokens b >> 4, b & 15
 *                   bytes   │ the rest is written <|id|>
 *
 * Text → tokens → text gives the same text for every well-formed string. A model samples any token: a token that is no
 * byte is written `<|id|>`, and read back as that one token; bytes that are no UTF-8 are written as U+FFFD. A client
 * that needs the tokens themselves asks for token ids.
 */
export class ByteTokenizer {
  readonly vocabSize: number;
  /** Tokens that stand for bytes: `[0, numByteTokens)`. */
  readonly numByteTokens: number;
  readonly #isWide: boolean;

  constructor(vocabSize: number) {
    this.vocabSize = vocabSize;
    this.#isWide = vocabSize >= 256;
    this.numByteTokens = this.#isWide ? 256 : 16;
  }

  /** `text` must be well-formed (no lone surrogates). */
  encode(text: string): Uint32Array {
    const tokens: number[] = [];
    let from = 0;
    for (const match of text.matchAll(/<\|(0|[1-9]\d{0,9})\|>/g)) {
      const id = Number(match[1]);
      if (id < this.numByteTokens || id >= this.vocabSize) continue;
      this.#encodeBytes(text.slice(from, match.index), tokens);
      tokens.push(id);
      from = match.index + match[0].length;
    }
    this.#encodeBytes(text.slice(from), tokens);
    return Uint32Array.from(tokens);
  }

  decode(tokens: Iterable<number>): string {
    const decoder = new TokenDecoder(this);
    return decoder.push(tokens) + decoder.end();
  }

  #encodeBytes(text: string, tokens: number[]): void {
    for (const byte of Buffer.from(text, 'utf8')) {
      if (this.#isWide) tokens.push(byte);
      else tokens.push(byte >> 4, byte & 15);
    }
  }
}

/** Decodes one sequence as its tokens come; bytes of an incomplete character are held back. */
export class TokenDecoder {
  readonly #tokenizer: ByteTokenizer;
  readonly #utf8 = new TextDecoder('utf-8', { ignoreBOM: true });
  /** Upper half of a byte whose lower half has not come; −1: none. */
  #upperHalf = -1;

  constructor(tokenizer: ByteTokenizer) {
    this.#tokenizer = tokenizer;
  }

  /** Returns the text that more tokens cannot change. */
  push(tokens: Iterable<number>): string {
    const { numByteTokens } = this.#tokenizer;
    let text = '';
    let bytes: number[] = [];
    for (const token of tokens) {
      if (token >= numByteTokens) {
        text += this.#text(bytes) + this.#endCharacter() + `<|${token}|>`;
        bytes = [];
      } else if (numByteTokens === 256) bytes.push(token);
      else if (this.#upperHalf < 0) this.#upperHalf = token;
      else {
        bytes.push((this.#upperHalf << 4) | token);
        this.#upperHalf = -1;
      }
    }
    return text + this.#text(bytes);
  }

  /** Returns the rest: U+FFFD for a character that was cut off. */
  end(): string {
    return this.#endCharacter();
  }

  #text(bytes: number[]): string {
    return bytes.length === 0 ? '' : this.#utf8.decode(Uint8Array.from(bytes), { stream: true });
  }

  #endCharacter(): string {
    const half = this.#upperHalf < 0 ? '' : '\u{fffd}';
    this.#upperHalf = -1;
    return this.#utf8.decode() + half;
  }
}
