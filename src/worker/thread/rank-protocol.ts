/**
 * The tasks that a rank's thread takes, and its replies. Per-token and per-row data only ever in transferred
 * ArrayBuffers.
 */

import type { WorkerFault } from '../../contract/config.ts';
import type { ErrorCode } from '../../contract/errors.ts';
import type { DeviceInfo } from '../../contract/device.ts';
import type { WorkerLiveCounts } from '../executor.ts';
import type { RankUsage } from './rank-usage.ts';

export type RankTask =
  | Readonly<{ kind: 'start' }>
  | Readonly<{
      kind: 'execute';
      /** A step message; comes back with the reply. */
      message: ArrayBuffer;
      /** Buffers of earlier replies, to be used again. */
      returnedWords: readonly ArrayBuffer[];
      returnedRows: readonly ArrayBuffer[];
    }>
  | Readonly<{ kind: 'counts' }>
  /** Measuring begins with the first of these. */
  | Readonly<{ kind: 'take-usage' }>
  | Readonly<{ kind: 'arm-fault'; fault: WorkerFault }>
  | Readonly<{ kind: 'read-kv'; blockIds: Uint32Array }>
  | Readonly<{ kind: 'write-kv'; blockIds: Uint32Array; keys: Uint32Array }>
  | Readonly<{ kind: 'stop' }>;

export type ExecuteReply = Readonly<{
  kind: 'output';
  message: ArrayBuffer;
  words: ArrayBuffer;
  rows: ArrayBuffer | null;
  /** Since the start. */
  readbackBytes: Readonly<{ all: number; capture: number }>;
}>;

export type RankReply =
  | Readonly<{ kind: 'started'; device: DeviceInfo }>
  | ExecuteReply
  | Readonly<{
      kind: 'counts';
      counts: Omit<WorkerLiveCounts, 'lentBuffers'>;
      /** Buffers that left with replies and have not come back. */
      numLent: number;
    }>
  /** Since the last of these. */
  | Readonly<{ kind: 'usage'; usage: RankUsage }>
  | Readonly<{ kind: 'fault-armed' }>
  | Readonly<{ kind: 'kv'; keys: Uint32Array<ArrayBuffer> }>
  | Readonly<{ kind: 'kv-written' }>
  | Readonly<{ kind: 'stopped' }>
  /** Errors travel as data: a cloned Error loses its code. */
  | Readonly<{ kind: 'failed'; code: ErrorCode; message: string }>;

/** Comes by itself, outside any reply: the rank is of no use any more. It goes on replying until it is stopped. */
export type LossNotice = Readonly<{ code: 'DEVICE_LOST' | 'WORKER_LOST'; message: string }>;
