/**
 * What a client is told when its request is not served: status and OpenAI's error body, for every code of the error
 * table.
 */

import type { ErrorCode, ErrorDetails } from '../contract/errors.ts';
import { RoutedExpertsError } from '../contract/errors.ts';

type Answer = Readonly<{ status: number; type: string; code: string | null }>;

const invalid = (status = 400, code: string | null = null): Answer => ({ status, type: 'invalid_request_error', code });

/** Codes that are not here are this server's own faults: 500. */
const answers: Readonly<Partial<Record<ErrorCode, Answer>>> = {
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
  CACHE_IN_USE: invalid(409, 'cache_in_use'),
  UNAUTHORIZED: { status: 401, type: 'authentication_error', code: 'invalid_api_key' },
  UNKNOWN_MODEL: invalid(404, 'model_not_found'),
  UNKNOWN_ROUTE: invalid(404, 'unknown_url'),
  WRONG_METHOD: invalid(405, 'method_not_allowed'),
  TOO_SLOW: invalid(408, 'request_timeout'),
  BODY_TOO_LARGE: invalid(413, 'body_too_large'),
  BAD_MEDIA_TYPE: invalid(415, 'unsupported_media_type'),
  HEADERS_TOO_LARGE: invalid(431, 'headers_too_large'),
  OVERLOADED: { status: 429, type: 'rate_limit_error', code: 'overloaded' },
  DRAINING: { status: 503, type: 'service_unavailable', code: 'draining' },
  BACKEND_FAILED: { status: 502, type: 'server_error', code: 'bad_gateway' },
  NO_BACKEND: { status: 503, type: 'service_unavailable', code: 'no_backend' },
  BACKEND_TOO_SLOW: { status: 504, type: 'server_error', code: 'gateway_timeout' },
  DESIGN_FAILED: { status: 500, type: 'server_error', code: 'design_failed' },
  KV_LOAD_FAILED: { status: 500, type: 'server_error', code: 'kv_load_failed' },
  ENGINE_DEAD: { status: 503, type: 'service_unavailable', code: 'engine_dead' },
};

export type ErrorBody = Readonly<{
  error: Readonly<{ message: string; type: string; param: string | null; code: string | null }>;
}>;

/** An error of the table on its way to a client. */
export class HttpError extends Error {
  readonly status: number;
  readonly body: ErrorBody;

  /** `param`: the field of the request that it is about. */
  constructor(cause: RoutedExpertsError, param: string | null = null) {
    super(cause.message, { cause });
    this.name = 'HttpError';
    const { status, type, code } = answers[cause.code] ?? { status: 500, type: 'server_error', code: null };
    this.status = status;
    this.body = { error: { message: cause.message, type, param, code } };
  }

  static of<C extends ErrorCode>(code: C, param: string | null, ...details: ErrorDetails<C>): HttpError {
    return new HttpError(RoutedExpertsError.of(code, ...details), param);
  }
}
