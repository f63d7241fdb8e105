/** Padded base64 (RFC 4648 §4), on Node and in browsers. */

type Encoded = Readonly<{ toString: (encoding: 'base64') => string }>;

/** Node's own conversion: a sixth of the time that `btoa` takes. */
type NodeBuffer = Readonly<{
  from: ((bytes: ArrayBufferLike, offset: number, length: number) => Encoded) &
    ((text: string, encoding: 'base64') => Uint8Array);
}>;

const node = (globalThis as Readonly<{ Buffer?: NodeBuffer }>).Buffer;

export function encodeBase64(bytes: Uint8Array): string {
  return node === undefined
    ? encodePlainly(bytes)
    : node.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('base64');
}

/** Bytes in memory of their own, aligned for every element type; `null` for a text that is not whole base64. */
export function decodeBase64(text: string): Uint8Array | null {
  if (node === undefined) return decodePlainly(text);
  const bytes = new Uint8Array(node.from(text, 'base64'));
  // `Buffer` passes over what it does not know.
  const padding = text.endsWith('==') ? 2 : Number(text.endsWith('='));
  return bytes.length === (text.length / 4) * 3 - padding ? bytes : null;
}

/** Arguments of one call: far fewer than any engine's limit. */
const CODES_PER_CALL = 8192;

/** As `encodeBase64`, without Node. */
export function encodePlainly(bytes: Uint8Array): string {
  let codes = '';
  for (let at = 0; at < bytes.length; at += CODES_PER_CALL) {
    codes += String.fromCharCode(...bytes.subarray(at, at + CODES_PER_CALL));
  }
  return btoa(codes);
}

/** As `decodeBase64`, without Node. */
export function decodePlainly(text: string): Uint8Array | null {
  if (text.length % 4 !== 0) return null;
  try {
    return Uint8Array.from(atob(text), (code) => code.charCodeAt(0));
  } catch {
    return null;
  }
}
