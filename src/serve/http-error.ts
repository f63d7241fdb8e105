/** What a client is told when its request is not served: status and OpenAI's error body, for every error. */

import type { RoutedExpertsError, ErrorCode } from '../contract/errors.ts';

type Answer = Readonly<{ status: number; type: string; code: string | null }>;

const invalid = (status = 400, code: string | null = null): Answer => ({ status, type: 'invalid_request_error', code });
const unavailable = (code: string): Answer => ({ status: 503, type: 'service_unavailable', code });
const failed = (status: number, code: string): Answer => ({ status, type: 'server_error', code });

/** Errors that only the server makes. Each message names the value, the limit and what to do. */
const messages = {
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
  NO_BACKEND: (role: string, urls: string) =>
    `no ${role} server is up (${urls}); start one, or name another with --${role}`,
  BACKEND_FAILED: (role: string, url: string, problem: string) =>
    `the ${role} server ${url} gave no answer that can be used: ${problem}; try again, or look at its log`,
  BACKEND_TOO_SLOW: (role: string, url: string, problem: string) =>
    `the ${role} server ${url} was given up: ${problem}; try again, or raise --${role}-timeout`,
  KV_LOAD_FAILED: (reason: string) => `the KV that this request begins with could not be loaded: ${reason}`,
  CACHE_IN_USE: (problem: string): string => `the cache is not flushed: ${problem}`,
  PAUSE_UNSUPPORTED: (mode: string, running: number): string =>
    `mode "${mode}" is not supported while requests run, and ${running} do: this server cannot hold them between two ` +
    'steps; pause with mode abort or wait, or once nothing runs',
  WEIGHTS_IN_USE: (running: number): string =>
    `the weights were not updated: ${running} requests run; pause first, or send abort_all_requests`,
  VERSION_BACKWARDS: (version: string, current: string): string =>
    `weight_version ${version} is before ${current}, which the weights are; send a later one`,
} as const;

type HttpErrorCode = keyof typeof messages;

/** Codes that are not here are this server's own faults: 500. */
const answers: Readonly<Partial<Record<ErrorCode, Answer>> & Record<HttpErrorCode, Answer>> = {
  BAD_FIELD: invalid(),
  BAD_VALUE: invalid(),
  UNSUPPORTED_FIELD: invalid(400, 'unsupported_value'),
  BAD_JSON: invalid(400, 'invalid_json'),
  BAD_HTTP: invalid(),
  DUPLICATE_REQUEST: invalid(400, 'duplicate_request_id'),
  EMPTY_PROMPT: invalid(),
  BAD_MAX_TOKENS: invalid(),
  PROMPT_START_OUT_OF_RANGE: invalid(),
  PROMPT_TOO_LONG: invalid(400, 'context_length_exceeded'),
  EXCEEDS_POOL: invalid(400, 'context_length_exceeded'),
  TOO_MANY_CHOICES: invalid(),
  CACHE_IN_USE: invalid(400, 'cache_in_use'),
  PAUSE_UNSUPPORTED: invalid(400, 'unsupported_value'),
  WEIGHTS_IN_USE: invalid(400, 'weights_in_use'),
  VERSION_BACKWARDS: invalid(400, 'version_backwards'),
  ROWS_MISSING: failed(500, 'rows_missing'),
  UNAUTHORIZED: { status: 401, type: 'authentication_error', code: 'invalid_api_key' },
  UNKNOWN_MODEL: invalid(404, 'model_not_found'),
  UNKNOWN_ROUTE: invalid(404, 'unknown_url'),
  WRONG_METHOD: invalid(405, 'method_not_allowed'),
  TOO_SLOW: invalid(408, 'request_timeout'),
  BODY_TOO_LARGE: invalid(413, 'body_too_large'),
  BAD_MEDIA_TYPE: invalid(415, 'unsupported_media_type'),
  HEADERS_TOO_LARGE: invalid(431, 'headers_too_large'),
  OVERLOADED: { status: 429, type: 'rate_limit_error', code: 'overloaded' },
  DESIGN_FAILED: failed(500, 'design_failed'),
  KV_LOAD_FAILED: failed(500, 'kv_load_failed'),
  BACKEND_FAILED: failed(502, 'bad_gateway'),
  BACKEND_TOO_SLOW: failed(504, 'gateway_timeout'),
  DRAINING: unavailable('draining'),
  NO_BACKEND: unavailable('no_backend'),
  ENGINE_DEAD: unavailable('engine_dead'),
};

export type ErrorBody = Readonly<{
  error: Readonly<{ message: string; type: string; param: string | null; code: string | null }>;
}>;

/** An error on its way to a client. */
export class HttpError extends Error {
  readonly status: number;
  readonly body: ErrorBody;

  private constructor(errorCode: HttpErrorCode | ErrorCode, message: string, param: string | null, cause?: Error) {
    super(message, { cause });
    this.name = 'HttpError';
    const { status, type, code } = answers[errorCode] ?? { status: 500, type: 'server_error', code: null };
    this.status = status;
    this.body = { error: { message, type, param, code } };
  }

  /** `param`: the field of the request that it is about. */
  static of<C extends HttpErrorCode>(
    code: C,
    param: string | null,
    ...details: Parameters<(typeof messages)[C]>
  ): HttpError {
    const format = messages[code] as (...details: unknown[]) => string;
    return new HttpError(code, format(...details), param);
  }

  /** What a client is told of an error of the engine. */
  static from(cause: RoutedExpertsError): HttpError {
    return new HttpError(cause.code, cause.message, null, cause);
  }
}
