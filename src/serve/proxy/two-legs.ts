/** Makes two requests of a client's: for the prefill server and for the decode server (vLLM's NIXL pull flow). */

import { isObject } from '../../rows/json-object.ts';
import { badField } from '../body/body-fields.ts';

type Json = Readonly<Record<string, unknown>>;

export type PdPath = '/v1/completions' | '/v1/chat/completions' | '/inference/v1/generate';

/** Throws BAD_FIELD for a client's request that says where its KV is. */
export function checkClientBody(body: Json): void {
  const name = 'kv_transfer_params';
  const value = body[name] ?? undefined;
  if (value !== undefined) throw badField(name, value, 'no such field: the proxy writes it');
}

/** KV is handed over for one prompt. A request with several is served as a whole by the server that decodes. */
export function canBeSplit({ prompt }: Json): boolean {
  return !Array.isArray(prompt) || prompt.length <= 1 || typeof prompt[0] === 'number';
}

/**
 * One token of one choice, and the KV kept. `wantsRows`: in the answer, and not only handed over. A value that is wrong
 * stays, so that this leg is refused as the other would be, and keeps no KV in vain.
 */
export function prefillBody(path: PdPath, body: Json, wantsRows: boolean): Json {
  const kv_transfer_params = {
    do_remote_decode: true,
    do_remote_prefill: false,
    remote_engine_id: null,
    remote_block_ids: null,
    remote_host: null,
    remote_port: null,
    return_rows: wantsRows,
  };
  const { stream_options: _, return_token_ids: __, ...rest } = body;
  const stream = typeof (rest['stream'] ?? false) === 'boolean' ? false : rest['stream'];
  const sampling = rest['sampling_params'] ?? {};
  const hasParams = path === '/inference/v1/generate' && isObject(sampling);
  const first = hasParams ? { ...rest, sampling_params: firstToken(sampling) } : firstToken(rest);
  // A chat's answer is as long as this says, whatever `max_tokens` does.
  const chat = path === '/v1/chat/completions' ? { max_completion_tokens: one(rest['max_completion_tokens']) } : {};
  return { ...first, ...chat, stream, kv_transfer_params };
}

function firstToken({ min_tokens, best_of, ...rest }: Json): Json {
  const max_tokens = one(rest['max_tokens']);
  const n = one(rest['n']);
  const most = rest['max_completion_tokens'] ?? rest['max_tokens'] ?? Infinity;
  const isMinimum = isWhole(min_tokens ?? 0, 0) && Number(min_tokens ?? 0) <= Number(most);
  const isBest = (best_of ?? rest['n']) === rest['n'];
  return { ...rest, max_tokens, n, ...(isMinimum ? {} : { min_tokens }), ...(isBest ? {} : { best_of }) };
}

/** Returns 1 in place of a value that is right or absent. */
function one(value: unknown): unknown {
  return isWhole(value ?? 1, 1) ? 1 : value;
}

function isWhole(value: unknown, min: number): boolean {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= min;
}

/** `params`: what the server that prefilled answered; absent if it kept nothing. */
export function decodeBody(body: Json, params: unknown): Json {
  return isObject(params) ? { ...body, kv_transfer_params: params } : body;
}
