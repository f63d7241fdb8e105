/**
 * What each consumer's client does with an answer, written from the description of its source: the fields it reads, its
 * checks, and the rows that it comes to.
 */

import { expect } from 'vitest';

export type Json = Readonly<Record<string, unknown>>;

/** Rows as a consumer has them: `[count][L · K]`. */
export type ReadRows = Readonly<{ count: number; ids: readonly number[] }>;

export function int32Of(text: unknown): number[] {
  expect(typeof text).toBe('string');
  const bytes = Buffer.from(text as string, 'base64');
  expect(bytes.length % 4).toBe(0);
  return Array.from({ length: bytes.length / 4 }, (_, i) => bytes.readInt32LE(4 * i));
}

/** slime: tokens and logprobs from `output_token_logprobs` alone, `text` there, rows of just the shape it expects. */
export function slimeSample(
  answer: Json,
  { numPrompt, start, width }: Readonly<{ numPrompt: number; start: number; width: number }>,
): Readonly<{ tokens: number[]; logprobs: number[]; rows: ReadRows; finish: string; version: string }> {
  expect(typeof answer['text']).toBe('string');
  const meta = answer['meta_info'] as Json;
  const pairs = meta['output_token_logprobs'] as readonly (readonly [number, number, string | null])[];
  const tokens = pairs.map(([, id]) => id);
  const count = numPrompt + tokens.length - 1 - start;
  const ids = int32Of(meta['routed_experts']);
  if (ids.length !== count * width) throw new Error('element count does not match');
  if (ids.some((id) => id < 0)) throw new Error('a sentinel reaches a gather');
  expect(meta['routed_experts_start_len']).toBe(start);
  const { type } = meta['finish_reason'] as Readonly<{ type: string }>;
  expect(meta['completion_tokens']).toBe(tokens.length);
  return {
    tokens,
    logprobs: pairs.map(([logprob]) => logprob),
    rows: { count, ids },
    finish: type,
    version: meta['weight_version'] as string,
  };
}

/** AReaL: reshapes to `(prompt_tokens + completion_tokens − 1, −1)`. */
export function arealRows(answer: Json): ReadRows {
  const meta = answer['meta_info'] as Json;
  const count = (meta['prompt_tokens'] as number) + (meta['completion_tokens'] as number) - 1;
  const ids = int32Of(meta['routed_experts']);
  expect(ids.length % count).toBe(0);
  return { count, ids };
}

/** miles' session server, on a choice of a chat. */
export function milesTurn(choice: Json): Readonly<{ tokens: number[]; rows: readonly number[]; start: number }> {
  const message = choice['message'] as Json;
  if (message['content'] === null || message['content'] === undefined) throw new Error('UpstreamResponseError');
  expect(['stop', 'tool_calls', 'length', 'abort']).toContain(choice['finish_reason']);
  const meta = choice['meta_info'] as Json;
  const pairs = meta['output_token_logprobs'] as readonly (readonly [number, number])[];
  if (pairs.length !== meta['completion_tokens']) throw new Error('UpstreamResponseError');
  return {
    tokens: pairs.map(([, id]) => id),
    rows: int32Of(meta['routed_experts']),
    start: meta['routed_experts_start_len'] as number,
  };
}

/** NeMo Gym and NeMo-RL's codec. */
export function nemoTurn(
  message: Json,
): Readonly<{ prompt: number[]; tokens: number[]; logprobs: number[]; rows: ReadRows; shape: number[] }> {
  const names = ['prompt_token_ids', 'generation_token_ids', 'generation_log_probs'] as const;
  for (const name of names) if (!Array.isArray(message[name])) throw new Error('partial token metadata');
  const [prompt, tokens, logprobs] = names.map((name) => message[name] as number[]) as [number[], number[], number[]];
  expect(logprobs.length).toBe(tokens.length);
  for (const logprob of logprobs) expect(logprob).toBeGreaterThan(-9999);
  expect(message['reasoning'] ?? null).toBe(null);
  const parts = (message['routed_experts'] as string).split(':');
  expect(parts.length).toBe(4);
  const [name, dtype, dims, data] = parts as [string, string, string, string];
  expect([name, ['int8', 'int16', 'int32'].includes(dtype)]).toEqual(['nrlre1', true]);
  const shape = dims.split('x').map(Number);
  expect(shape.length).toBe(3);
  const bytes = Buffer.from(data, 'base64');
  const size = { int8: 1, int16: 2, int32: 4 }[dtype]!;
  expect(bytes.length).toBe(shape.reduce((a, b) => a * b, size));
  if (shape[0]! < prompt.length + tokens.length) throw new Error('too few routed_experts rows');
  const ids = Array.from({ length: bytes.length / size }, (_, i) => bytes.readIntLE(i * size, size));
  return { prompt, tokens, logprobs, rows: { count: shape[0]!, ids }, shape };
}

/** SkyRL: `decode_packed_routed_experts`. */
export function skyrlRows(value: unknown): ReadRows {
  if (typeof value !== 'object' || value === null) throw new TypeError('not an object');
  const { data, shape, dtype } = value as Readonly<{ data: string; shape: number[]; dtype: string }>;
  const size = { uint8: 1, int16: 2, int32: 4 }[dtype];
  if (size === undefined) throw new Error(`invalid dtype ${dtype}`);
  const bytes = Buffer.from(data, 'base64');
  expect(bytes.length).toBe(shape.reduce((a, b) => a * b, size));
  const read = (i: number): number => (size === 1 ? bytes.readUInt8(i) : bytes.readIntLE(i * size, size));
  const ids = Array.from({ length: bytes.length / size }, (_, i) => read(i));
  const largest = Math.max(0, ...ids);
  if (dtype !== (largest < 256 ? 'uint8' : largest < 32_768 ? 'int16' : 'int32')) throw new Error('non-canonical');
  if (ids.some((id) => id < 0)) throw new Error('negative ids');
  return { count: shape[0]!, ids };
}

/** verifiers: the object is cut out of the text unparsed where it begins as it looks for. */
export function verifiersRows(text: string): ReadRows & Readonly<{ start: number }> {
  const mark = '"routed_experts":{"data":"';
  const at = text.indexOf(mark);
  expect(at).toBeGreaterThan(0);
  const from = at + '"routed_experts":'.length;
  const object = JSON.parse(text.slice(from, text.indexOf('}', from) + 1)) as {
    data: string;
    shape: number[];
    start: number;
    dtype: 'uint8' | 'uint16';
  };
  const bytes = Buffer.from(object.data, 'base64');
  const size = { uint8: 1, uint16: 2 }[object.dtype];
  const ids = Array.from({ length: bytes.length / size }, (_, i) => bytes.readUIntLE(i * size, size));
  expect(ids.length).toBe(object.shape.reduce((a, b) => a * b, 1));
  return { count: object.shape[0]!, ids, start: object.start };
}

/** Content of OpenAI's chat and vLLM's tokens: one log-probability a token. */
export function contentLogprobs(choice: Json): number[] {
  const { content } = choice['logprobs'] as Readonly<{ content: readonly Readonly<{ logprob: number }>[] }>;
  return content.map(({ logprob }) => logprob);
}
