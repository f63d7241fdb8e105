/**
 * The utility calls of vLLM's frontend, each with its result. What has no meaning here returns what an engine without
 * that feature returns.
 */

import type { UtilityCall } from './wire/frontend-message.ts';
import { PAUSE_MODES, type PauseMode, type PauseRequest } from './pause.ts';

/** What the calls act on. */
export interface UtilityTarget {
  readonly isPaused: boolean;
  readonly isSleeping: boolean;
  /** Workers of this engine, each of which has a result in a collective call. */
  readonly numWorkers: number;
  /** Tokens of a KV block. */
  readonly blockSize: number;
  weightVersion: string;
  pause(request: PauseRequest): void;
  resume(): void;
  wakeUp(tags: readonly string[] | null): void;
  /** `false`: nothing has changed, since blocks are held. */
  resetPrefixCache(resetRunning: boolean): boolean;
}

/** The reply comes later. */
export const LATER: unique symbol = Symbol('later');

type Method = (target: UtilityTarget, args: readonly unknown[], call: UtilityCall) => unknown;

/** Of a worker. Weights here are no bytes: an update is accepted, and the next token stays the function that it is. */
const WORKER_METHODS = [
  'init_weight_transfer_engine',
  'start_weight_update',
  'update_weights',
  'finish_weight_update',
  'reload_weights',
];

const nothing: Method = () => null;

const METHODS: Readonly<Record<string, Method>> = {
  get_supported_tasks: () => ['generate'],
  reset_mm_cache: nothing,
  reset_encoder_cache: nothing,
  execute_dummy_batch: nothing,
  profile: nothing,
  // No cache lies outside of this engine: the second argument, for a connector's, has nothing to reset.
  reset_prefix_cache: (target, [resetRunning]) => target.resetPrefixCache(resetRunning === true),
  pause_scheduler: (target, [mode = 'abort', clearsCache = true], call) => {
    target.pause({ call, mode: pauseMode(mode), clearsCache: clearsCache === true, sleepLevel: 0 });
    return LATER;
  },
  resume_scheduler: (target) => {
    target.resume();
    return null;
  },
  is_scheduler_paused: ({ isPaused }) => isPaused,
  sleep: (target, [level = 1, mode = 'abort'], call) => {
    if (level !== 0 && level !== 1 && level !== 2) throw new Error(`level is ${String(level)}; give 0, 1 or 2`);
    target.pause({ call, mode: pauseMode(mode), clearsCache: level > 0, sleepLevel: level });
    return LATER;
  },
  wake_up: (target, [tags = null]) => {
    if (tags !== null && !Array.isArray(tags)) throw new Error('tags is no list; give a list of names, or nothing');
    target.wakeUp(tags as readonly string[] | null);
    return null;
  },
  is_sleeping: ({ isSleeping }) => isSleeping,
  set_weight_version: (target, [version]) => {
    if (typeof version !== 'string') throw new Error(`weight_version is ${String(version)}; give a text`);
    target.weightVersion = version;
    return null;
  },
  get_weight_version: ({ weightVersion }) => weightVersion,
  collective_rpc: ({ numWorkers }, [method]) => {
    if (!WORKER_METHODS.includes(method as string)) {
      throw new Error(`no such worker method; there are: ${WORKER_METHODS.join(', ')}`);
    }
    return Array.from({ length: numWorkers }, () => null);
  },
  get_kv_cache_group_metadata: ({ blockSize }) => [
    { group_idx: 0, kind: 'full_attention', block_size: blockSize, sliding_window: null },
  ],
  add_lora: () => false,
  remove_lora: () => false,
  pin_lora: () => false,
  list_loras: () => [],
};

/** Throws an Error whose message goes to the caller. */
export function callUtility(target: UtilityTarget, call: UtilityCall): unknown {
  if (!Object.hasOwn(METHODS, call.method)) throw new Error('no such method');
  return METHODS[call.method]!(target, call.args, call);
}

function pauseMode(mode: unknown): PauseMode {
  const known = PAUSE_MODES.find((name) => name === mode);
  if (known === undefined) throw new Error(`Invalid pause mode: ${String(mode)}; give ${PAUSE_MODES.join(', ')}`);
  return known;
}
