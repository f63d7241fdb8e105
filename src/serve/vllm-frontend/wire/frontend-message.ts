/** What a frontend says to the engine: frames `[type, body, buffers…]`, read. */

import type { AddRequest, AddRules } from './add-request.ts';
import { readAddRequest } from './add-request.ts';
import { firstText, unpack } from './msgpack.ts';

/** An id has 64 bits: those beyond 2^53 are a `bigint`, and go back as they came. */
type CallId = number | bigint;

export type UtilityCall = Readonly<{
  clientIndex: number;
  callId: CallId;
  method: string;
  args: readonly unknown[];
}>;

export type FrontendMessage =
  | Readonly<{ kind: 'add'; add: AddRequest }>
  | Readonly<{ kind: 'refused'; requestId: string; clientIndex: number; problem: string }>
  | Readonly<{ kind: 'abort'; requestIds: readonly string[] }>
  | Readonly<{ kind: 'utility'; call: UtilityCall }>
  | Readonly<{ kind: 'start-wave'; wave: number; excluded: number | null }>
  | Readonly<{ kind: 'unreadable'; problem: string }>;

export type MessageRules = AddRules & Readonly<{ maxMessageBytes: number }>;

const TYPES = ['add', 'abort', 'start-wave', 'utility'] as const;

/** `socketIndex`: of the API server whose socket it came by; it hears of what cannot be read. */
export function readFrontendMessage(
  frames: readonly Uint8Array[],
  socketIndex: number,
  rules: MessageRules,
): FrontendMessage {
  const [type, body] = frames;
  const kind = type?.length === 1 ? TYPES[type[0]!] : undefined;
  if (kind === undefined || type === undefined) return unreadable(`its type is ${shownBytes(type)}, which is none`);
  if (body === undefined) return unreadable('it has no body');
  const refused = (problem: string): FrontendMessage => {
    const requestId = kind === 'add' ? firstText(body) : null;
    if (requestId === null) return unreadable(problem);
    return { kind: 'refused', requestId, clientIndex: socketIndex, problem };
  };
  const numBytes = frames.reduce((sum, frame) => sum + frame.length, 0);
  if (numBytes > rules.maxMessageBytes) {
    return refused(`it has ${numBytes} bytes, at most ${rules.maxMessageBytes} are read (--max-message-bytes)`);
  }
  try {
    const items = unpack(body);
    if (!Array.isArray(items)) return unreadable('its body is no array');
    return READERS[kind](items, rules);
  } catch (error) {
    return refused((error as Error).message);
  }
}

const READERS: Readonly<
  Record<(typeof TYPES)[number], (items: readonly unknown[], rules: AddRules) => FrontendMessage>
> = {
  add: (items, rules) => ({ kind: 'add', add: readAddRequest(items, rules) }),
  abort: (items) => ({ kind: 'abort', requestIds: items.filter((id): id is string => typeof id === 'string') }),
  'start-wave': ([wave, excluded]) => {
    if (!Number.isSafeInteger(wave)) return unreadable('its wave is no number');
    return { kind: 'start-wave', wave: wave as number, excluded: typeof excluded === 'number' ? excluded : null };
  },
  utility: ([clientIndex, callId, method, args], { numClients }) => {
    const isClient = typeof clientIndex === 'number' && clientIndex >= 0 && clientIndex < numClients;
    if (!isClient) return unreadable(`its client is ${String(clientIndex)}, and there are ${numClients}`);
    if (typeof callId !== 'bigint' && !Number.isSafeInteger(callId)) return unreadable('its call has no id');
    const name = typeof method === 'string' ? method : '';
    const call = { clientIndex, callId: callId as CallId, method: name, args: Array.isArray(args) ? args : [] };
    return { kind: 'utility', call };
  },
};

function unreadable(problem: string): FrontendMessage {
  return { kind: 'unreadable', problem };
}

function shownBytes(bytes: Uint8Array | undefined): string {
  if (bytes === undefined) return 'missing';
  return `${Buffer.from(bytes.subarray(0, 8)).toString('hex')} (${bytes.length} bytes)`;
}
