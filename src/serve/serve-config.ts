/** What a server is told when it starts. Times in ms, sizes in bytes. */

import type { DialectName } from './dialects/endpoints.ts';
import type { EngineHostOptions } from './engine-host.ts';

export type ServeConfig = Readonly<{
  engine: EngineHostOptions;
  /** The name under which the model is served. */
  servedModel: string;
  host: string;
  /** 0: any free one. */
  port: number;
  /** `null`: whoever can connect may ask. */
  apiKey: string | null;
  limits: HttpLimits;
  /** Of requests that do not tell it themselves. */
  dialect: DialectName;
  /** Every request gets rows, as with vLLM's flag of this name, unless it says that it wants none. */
  isEveryRowReturned: boolean;
  /** Directory of files that all rows are written to; `null`: none. */
  saveRows: string | null;
  logLevel: 'silent' | 'error' | 'warn' | 'info' | 'debug';
  /** Where the log goes. */
  log: Readonly<{ write: (line: string) => void }>;
}>;

export type HttpLimits = Readonly<{
  bodyBytes: number;
  /** Request line and headers. */
  headerBytes: number;
  /** Until the headers, and until the whole request, must have arrived. */
  headersMs: number;
  requestMs: number;
  /** A connection without a request is closed after this. */
  keepAliveMs: number;
  /** A client that takes nothing of its answer for this long is cut off. */
  stallMs: number;
  /** Choices being served at once. */
  maxConcurrent: number;
  maxConnections: number;
}>;

export const defaultLimits: HttpLimits = {
  // A conversation may bring back the rows of all its turns.
  bodyBytes: 64 * 2 ** 20,
  headerBytes: 16 * 2 ** 10,
  headersMs: 10_000,
  requestMs: 30_000,
  keepAliveMs: 72_000,
  stallMs: 60_000,
  maxConcurrent: 256,
  maxConnections: 4096,
};
