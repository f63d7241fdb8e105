/** Every error that a user can cause, in one table: each message names the value, the limit and what to do. */

const messages = {
  DUPLICATE_REQUEST: (id: string) => `request id "${id}" is in use; give each request alive an id of its own`,
  EMPTY_PROMPT: (id: string) => `request "${id}" has an empty prompt; send at least one token`,
  PROMPT_TOO_LONG: (id: string, length: number, maxModelLen: number) =>
    `request "${id}": a prompt of ${length} tokens leaves no room for an output token: the model takes ${maxModelLen} together; shorten it or raise --max-model-len`,
  EXCEEDS_POOL: (id: string, needed: number, usable: number) =>
    `request "${id}" can need ${needed} KV blocks, the pool has ${usable}; shorten it, lower its max_tokens or raise --num-blocks`,
  PROMPT_START_OUT_OF_RANGE: (id: string, start: number, promptLength: number) =>
    `request "${id}": routed_experts_prompt_start ${start} is not a whole number in [0, ${promptLength}); give a position inside the prompt`,
  BAD_MAX_TOKENS: (id: string, value: number) => `request "${id}": max_tokens ${value} is not a whole number ≥ 1`,
  BAD_VALUE: (name: string, value: unknown, wanted: string) => `${name} is ${String(value)}; give ${wanted}`,
  UNKNOWN_NAME: (what: string, name: string, known: readonly string[]) =>
    `unknown ${what} "${name}"; choose one of: ${known.join(', ')}`,
  BAD_DESIGN: (module: string, problem: string) =>
    `design module ${module}: ${problem}; it must export name, gaps, engineHalf and workerHalf (docs/simulation.md)`,
  DESIGN_FAILED: (design: string, hook: string, problem: string) =>
    `design "${design}" broke its contract in ${hook}: ${problem}; repair it, or choose another design`,
  BAD_TRACE_LINE: (file: string, line: number, problem: string) => `${file}:${line}: ${problem}`,
  BAD_FILE: (file: string, problem: string) => `${file}: ${problem}`,
  NO_ADAPTER: (tried: readonly string[]) =>
    `no WebGPU adapter found; tried ${tried.join('; ')}. Use --device cpu to run without one`,
  SHARED_MEMORY: (what: string, hint: string) => `shm-flock needs POSIX shared memory: ${what}; ${hint}`,
  ROUTING_NOT_CAPTURED: (design: string) =>
    `design "${design}" returns routed experts, and a monolithic router without routing_replay_out writes none; give it that output (leave out --no-routing-replay), take --router modular, or --design off`,
  DEVICE_LOST: (reason: string) => `the device is gone: ${reason}`,
  NOTHING_SERVED: (count: number, refusal: string) => `all ${count} requests were refused, for example: ${refusal}`,
  WORKER_LOST: (rank: number, reason: string) => `worker of rank ${rank} was lost: ${reason}`,
  RANKS_DIFFER: (rank: number, stepId: number, what: string) =>
    `rank ${rank} differs from rank 0 in step ${stepId}: ${what}; check the device of each rank`,
  BAD_FIELD: (name: string, shown: string, wanted: string) => `${name} is ${shown}; give ${wanted}`,
  UNSUPPORTED_FIELD: (name: string, shown: string, instead: string) => `${name} ${shown} is not supported; ${instead}`,
  BAD_JSON: (problem: string) => `the body is not a JSON object that can be read: ${problem}`,
  BAD_MEDIA_TYPE: (what: string) => `${what} is not supported; send application/json in UTF-8, not compressed`,
  BAD_HTTP: (problem: string) => `the request is not valid HTTP: ${problem}`,
  BODY_TOO_LARGE: (limit: number) => `the body is longer than ${limit} bytes; shorten it or raise --max-body-bytes`,
  HEADERS_TOO_LARGE: (limit: number) => `the request line and headers are longer than ${limit} bytes`,
  TOO_SLOW: (seconds: number) => `the request did not arrive within ${seconds} s`,
  UNAUTHORIZED: () => 'the API key is missing or wrong; send the header "Authorization: Bearer KEY"',
  UNKNOWN_MODEL: (name: string, served: string) => `the model "${name}" does not exist; this server serves "${served}"`,
  UNKNOWN_ROUTE: (method: string, path: string) =>
    `there is no ${method} ${path}; see docs/serving.md for what there is`,
  WRONG_METHOD: (method: string, path: string, allowed: string) => `${path} does not answer ${method}; use ${allowed}`,
  OVERLOADED: (limit: number) => `${limit} requests are being served, as many as may be; try again soon`,
  TOO_MANY_CHOICES: (wanted: number, limit: number) =>
    `prompts times n is ${wanted}, at most ${limit} can be served at once; split the request`,
  DRAINING: () => 'the server is shutting down and takes no new requests; send it to another one',
  CANNOT_LISTEN: (address: string, problem: string) =>
    `cannot listen on ${address}: ${problem}; choose another --host or --port`,
  NO_BACKEND: (role: string, urls: string) =>
    `no ${role} server is up (${urls}); start one, or name another with --${role}`,
  BACKEND_FAILED: (role: string, url: string, problem: string) =>
    `the ${role} server ${url} gave no answer that can be used: ${problem}; try again, or look at its log`,
  BACKEND_TOO_SLOW: (role: string, url: string, problem: string) =>
    `the ${role} server ${url} was given up: ${problem}; try again, or raise --${role}-timeout`,
  KV_LOAD_FAILED: (reason: string) => `the KV that this request begins with could not be loaded: ${reason}`,
  CACHE_IN_USE: (holders: string, resetRunning: boolean) =>
    `the prefix cache was not reset: its blocks are held by ${holders}; ask again once they are free${resetRunning ? '' : ', or with reset_running_requests=true, which computes running requests anew'}`,
  ENGINE_DEAD: (reason: string) => `the engine has stopped: ${reason}`,
  INVARIANT: (what: string) => `internal invariant broken: ${what}; please report it with the command and seed`,
} as const;

export type ErrorCode = keyof typeof messages;

/** What the message of a code is made from. */
export type ErrorDetails<C extends ErrorCode> = Parameters<(typeof messages)[C]>;

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

  /** An error of another thread, as it was worded there. */
  static relayed(code: ErrorCode, message: string): RoutedExpertsError {
    return new RoutedExpertsError(code, message);
  }
}
