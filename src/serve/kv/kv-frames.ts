/**
 * The messages between two engines, multipart over ZeroMQ. The first frame is JSON; numbers in the others are
 * little-endian.
 *
 *     read      DEALER ─▶ ROUTER   [ header ]                    the question: see `KvQuestion`
 *     answer    DEALER ◀─ ROUTER   [ header ][ keys ][ rows ]    the other frames are empty if there is an error
 *     release   DEALER ─▶ ROUTER   [ header ]                    the blocks are read no more; there is no answer
 *
 * keys: `[blocks of [from, to), blockSize, 2]` u32. rows: `[rowsEnd − rowsStart, L, K]` u8 or u16, or empty.
 */

import { createHash } from 'node:crypto';
import { crc32 } from 'node:zlib';
import type { ModelConfig } from '../../contract/config.ts';
import type { KvQuestion } from '../../handover/kv-message.ts';
import { routingFunctionName, routingFunctionOf } from '../../kernels/router/routing-function.ts';

export const PROTOCOL = 1;

export type ReadHeader = Readonly<{ protocol: number; kind: 'read'; id: number }> & KvQuestion;

export type ReleaseHeader = Readonly<{ protocol: number; kind: 'release'; engineId: string; requestId: string }>;

export type AnswerHeader = Readonly<{
  protocol: number;
  /** That of the question. */
  id: number;
  /** Why there is no KV; `null`: the other frames hold it. */
  error: string | null;
  checksum: number;
  /** The rows are those of `[rowsStart, rowsEnd)`. */
  rowsStart: number;
  rowsEnd: number;
}>;

/** KV fits another engine only if this is equal: the model's shape, and the block size. */
export function shapeOf(model: ModelConfig, blockSize: number): string {
  const { name, numLayers, vocabSize, gateWidth } = model;
  const router = routingFunctionName(routingFunctionOf(model));
  return [name, numLayers, router, vocabSize, gateWidth, blockSize].join('/');
}

/**
 * Where a socket is bound or connected to. An IPv6 address stands in brackets, and its socket must be told (`ipv6`).
 */
export function endpoint(host: string, port: number | '*'): string {
  return `tcp://${isIpv6(host) ? `[${host}]` : host}:${port}`;
}

export function isIpv6(host: string): boolean {
  return host.includes(':');
}

export function tokenDigest(tokens: Uint32Array, numTokens: number): string {
  const bytes = new Uint8Array(tokens.buffer, tokens.byteOffset, 4 * numTokens);
  return createHash('sha256').update(bytes).digest('base64');
}

export function checksumOf(keys: Uint8Array, rows: Uint8Array): number {
  return crc32(rows, crc32(keys));
}

/** The question of a header, or `null` if it holds none: a peer may send anything. */
export function questionOf(header: Readonly<Record<string, unknown>>): KvQuestion | null {
  const { engineId, requestId, from, to, rowsStart, rowsDigest = '', shape, tokens } = header;
  const areTexts = [engineId, requestId, rowsDigest, shape, tokens].every((text) => typeof text === 'string');
  const areNumbers = [from, to, rowsStart ?? 0].every((number) => typeof number === 'number');
  return areTexts && areNumbers ? (header as unknown as KvQuestion) : null;
}

/** The object that a frame holds, or `null`. What a peer sends may be anything. */
export function parseHeader(frame: Uint8Array | undefined): Readonly<Record<string, unknown>> | null {
  try {
    const value: unknown = JSON.parse(Buffer.from(frame ?? []).toString('utf8'));
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : null;
  } catch {
    return null;
  }
}
