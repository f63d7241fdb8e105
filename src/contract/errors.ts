/** Every error that a user can cause, in one table: each message names the value, the limit and what to do. */

const messages = {
  DUPLICATE_REQUEST: (id: string) => `request id "${id}" is in use; give each request alive an id of its own`,
  EMPTY_PROMPT: (id: string) => `request "${id}" has an empty prompt; send at least one token`,
  PROMPT_TOO_LONG: (id: string, length: number, maxModelLen: number) =>
    `request "${id}": a prompt of ${length} tokens leaves no room for an output token in maxModelLen ${maxModelLen}; shorten it or raise maxModelLen`,
  EXCEEDS_POOL: (id: string, needed: number, usable: number) =>
    `request "${id}" can need ${needed} KV blocks, the pool has ${usable}; shorten it, lower its maxTokens or raise numBlocks`,
  PROMPT_START_OUT_OF_RANGE: (id: string, start: number, promptLength: number) =>
    `request "${id}": routedExpertsPromptStart ${start} is not a whole number in [0, ${promptLength}); give a position inside the prompt`,
  BAD_MAX_TOKENS: (id: string, value: number) => `request "${id}": maxTokens ${value} is not a whole number ≥ 1`,
  BAD_VALUE: (name: string, value: unknown, wanted: string) => `${name} is ${String(value)}; give ${wanted}`,
  UNKNOWN_NAME: (what: string, name: string, known: readonly string[]) =>
    `unknown ${what} "${name}"; choose one of: ${known.join(', ')}`,
  BAD_TRACE_LINE: (file: string, line: number, problem: string) => `${file}:${line}: ${problem}`,
  BAD_FILE: (file: string, problem: string) => `${file}: ${problem}`,
  NO_ADAPTER: (tried: readonly string[]) =>
    `no WebGPU adapter found; tried ${tried.join('; ')}. Use --device cpu to run without one`,
  SHARED_MEMORY: (what: string, hint: string) => `shm-flock needs POSIX shared memory: ${what}; ${hint}`,
  DEVICE_LOST: (reason: string) => `the device is gone: ${reason}; the run cannot go on`,
  WORKER_LOST: (rank: number, reason: string) => `worker of rank ${rank} died: ${reason}; the run cannot go on`,
  INVARIANT: (what: string) => `internal invariant broken: ${what}; please report it with the command and seed`,
} as const;

export type ErrorCode = keyof typeof messages;

export class RoutedExpertsError extends Error {
  readonly code: ErrorCode;

  private constructor(code: ErrorCode, message: string) {
    super(message);
    this.name = 'RoutedExpertsError';
    this.code = code;
  }

  static of<C extends ErrorCode>(code: C, ...details: Parameters<(typeof messages)[C]>): RoutedExpertsError {
    const format = messages[code] as (...details: unknown[]) => string;
    return new RoutedExpertsError(code, format(...details));
  }

  /** An error of another thread, as it was worded there. */
  static relayed(code: ErrorCode, message: string): RoutedExpertsError {
    return new RoutedExpertsError(code, message);
  }
}
