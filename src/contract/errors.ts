/**
 * The errors that a user can cause, in one table: each message names the value, the limit and what to do. What only a
 * client of the server can cause stands in `serve/http-error.ts`.
 */

/** A value in a message. A text that reads as a number, or as nothing, stands in quotes. */
function shown(value: unknown): string {
  if (typeof value === 'bigint') return `${value}n`;
  return typeof value === 'string' && Number.isFinite(Number(value)) ? `"${value}"` : String(value);
}

const messages = {
  DUPLICATE_REQUEST: (id: string) => `request id "${id}" is in use; give each request alive an id of its own`,
  EMPTY_PROMPT: (id: string) => `request "${id}" has an empty prompt; send at least one token`,
  PROMPT_TOO_LONG: (id: string, length: number, maxModelLen: number): string =>
    `request "${id}": a prompt of ${length} tokens leaves no room for an output token: ` +
    `the context length is ${maxModelLen}; shorten it, or raise --max-model-len (maxModelLen)`,
  EXCEEDS_POOL: (id: string, needed: number, usable: number): string =>
    `request "${id}" can need ${needed} KV blocks, the pool has ${usable}; ` +
    'shorten it, lower its max_tokens, or raise --num-blocks (numBlocks)',
  PROMPT_START_OUT_OF_RANGE: (id: string, start: number, promptLength: number): string =>
    `request "${id}": routed_experts_prompt_start ${start} is not a whole number in [0, ${promptLength}); ` +
    'give a position inside the prompt',
  BAD_MAX_TOKENS: (id: string, value: number) =>
    `request "${id}": max_tokens ${shown(value)} is not a whole number ≥ 1`,
  BAD_VALUE: (name: string, value: unknown, wanted: string) => `${name} is ${shown(value)}; give ${wanted}`,
  UNKNOWN_NAME: (what: string, name: string, known: readonly string[]) =>
    `unknown ${what} "${name}"; choose one of: ${known.join(', ')}`,
  BAD_DESIGN: (module: string, problem: string) =>
    `design module ${module}: ${problem} (docs/simulation.md shows a whole design)`,
  DESIGN_FAILED: (design: string, hook: string, problem: string) =>
    `design "${design}" broke its contract in ${hook}: ${problem}; repair it, or choose another design`,
  BAD_TRACE_LINE: (file: string, line: number, problem: string) => `${file}:${line}: ${problem}`,
  BAD_FILE: (file: string, problem: string) => `${file}: ${problem}`,
  ROWS_MISSING: (form: string, missing: readonly (readonly number[])[]): string =>
    `the form "${form}" cannot say that rows are missing, and ${missing.length} ranges of them are, the first ` +
    `[${missing[0]!.join(', ')}); ask for another ` +
    'routed_experts_format, or take a --design and --prefix-rows that leave none out',
  BAD_ROWS: (form: string, problem: string) =>
    `no rows in the form "${form}": ${problem}; give the form in which they were written`,
  NO_ADAPTER: (tried: readonly string[]) =>
    `no WebGPU adapter found; tried ${tried.join('; ')}. Use --device cpu (device: 'cpu') to run without one`,
  SHARED_MEMORY: (what: string, hint: string) => `shm-flock needs POSIX shared memory: ${what}; ${hint}`,
  ROUTING_NOT_CAPTURED: (design: string): string =>
    `design "${design}" returns routed experts, and a monolithic router without routing_replay_out writes none; ` +
    'give it that output (leave out --no-routing-replay), take --router modular, or --design off',
  STAGES_REFUSED: (design: string, reason: string) =>
    `design "${design}" refuses pipeline stages, ${reason}; take --design deltas, or one stage`,
  DEVICE_LOST: (reason: string) => `the device is gone: ${reason}`,
  NOTHING_SERVED: (count: number, refusal: string) => `all ${count} requests were refused, for example: ${refusal}`,
  WORKER_LOST: (rank: number, reason: string) => `worker of rank ${rank} was lost: ${reason}`,
  COLLECTIVE_TIMEOUT: (timeoutMs: number, report: string) =>
    `the ranks stand still, for longer than --collective-timeout ${timeoutMs / 1e3} s: ${report}`,
  RANKS_DIFFER: (rank: number, stepId: number, what: string) =>
    `rank ${rank} differs from rank 0 in step ${stepId}: ${what}; check the device of each rank`,
  CANNOT_LISTEN: (address: string, problem: string) =>
    `cannot listen on ${address}: ${problem}; choose another --host or --port`,
  NO_FRONTEND: (address: string, problem: string): string =>
    `no vLLM frontend at ${address}: ${problem}; start "vllm serve MODEL --data-parallel-size-local 0" and give its ` +
    '--data-parallel-address and --data-parallel-rpc-port (docs/vllm-frontend.md)',
  BAD_FRONTEND: (address: string, problem: string) =>
    `the frontend at ${address} cannot use this engine: ${problem} (docs/vllm-frontend.md)`,
  ENGINE_DEAD: (reason: string) => `the engine has stopped: ${reason}; start another`,
  NO_QUEUE: (address: string, problem: string) => `no queue at ${address}: ${problem} (docs/campaigns.md)`,
  SHARD_FAILED: (campaign: string, shard: number, problem: string): string =>
    `campaign ${campaign}: shard ${shard} failed: ${problem}; repair that, then resume it by its id`,
  SHARD_DIFFERS: (shard: number): string =>
    `shard ${shard} ran twice and has two results (L10); run it again on each of the machines (fuzz: with --twice)`,
  CAMPAIGN_STANDS: (campaign: string, seconds: number, problem: string): string =>
    `campaign ${campaign}: no shard has come back for ${seconds} s (--patience): ${problem}; then resume it by its id`,
  INVARIANT: (what: string) => `internal invariant broken: ${what}; please report it with the command and seed`,
} as const;

/** One of the codes of the table. */
export type ErrorCode = keyof typeof messages;

/** What the message of a code is made from. */
type ErrorDetails<C extends ErrorCode> = Parameters<(typeof messages)[C]>;

/** Every error that a caller can cause. Its message names the value, the limit and what to do. */
export class RoutedExpertsError extends Error {
  readonly code: ErrorCode;

  private constructor(code: ErrorCode, message: string) {
    super(message);
    this.name = 'RoutedExpertsError';
    this.code = code;
  }

  static of<C extends ErrorCode>(code: C, ...details: ErrorDetails<C>): RoutedExpertsError {
    const format = messages[code] as (...details: unknown[]) => string;
    return new RoutedExpertsError(code, format(...details));
  }

  /** Makes an error of another thread again, with the message that it had there. */
  static relayed(code: ErrorCode, message: string): RoutedExpertsError {
    return new RoutedExpertsError(code, message);
  }
}
