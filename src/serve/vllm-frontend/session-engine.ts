import type { EngineStats } from '../../engine/engine-core.ts';
import type { AddRequest } from './wire/add-request.ts';

/** The engine, as a session uses it. Outputs of `abort` come before it returns. */
export interface SessionEngine {
  /** Throws what `EngineCore.addRequest` throws, and ENGINE_DEAD. */
  add(request: AddRequest): void;
  /** Unknown ids are ignored. */
  abort(requestIds: readonly string[]): void;
  /** No step begins before `resume`. */
  pause(): void;
  resume(): void;
  resetPrefixCache(resetRunning: boolean): boolean;
  stats(): EngineStats;
}
