/** The HTTP shell: limits, authentication, error bodies, one log line a request. It knows nothing of engines. */

import { createHash, timingSafeEqual } from 'node:crypto';
import type { Socket } from 'node:net';
import { fastify, LogController } from 'fastify';
import type { FastifyError, FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { RoutedExpertsError } from '../contract/errors.ts';
import { HttpError } from './http-error.ts';
import { parseJsonBody } from './body/json-body.ts';
import type { ServeConfig } from './serve-config.ts';

declare module 'fastify' {
  interface FastifyRequest {
    /** Returns what the log line says of the request beside HTTP; called at the end. */
    summary: () => Readonly<Record<string, unknown>>;
    /** The error that its client was told. */
    failure: string | undefined;
  }
}

const MAX_LOGGED_PATH = 200;
/** How often node:http looks for connections that are over their time. */
const TIMEOUT_CHECK_MS = 1000;

type ShellConfig = Pick<ServeConfig, 'apiKey' | 'limits' | 'logLevel' | 'log'>;

export function createApp(config: ShellConfig): FastifyInstance {
  const { limits } = config;
  const app = fastify({
    logger: { level: config.logLevel, stream: config.log },
    logController: new LogController({ disableRequestLogging: true }),
    requestIdHeader: false,
    bodyLimit: limits.bodyBytes,
    requestTimeout: limits.requestMs,
    keepAliveTimeout: limits.keepAliveMs,
    forceCloseConnections: true,
    http: {
      maxHeaderSize: limits.headerBytes,
      headersTimeout: Math.min(limits.headersMs, limits.requestMs),
      connectionsCheckingInterval: Math.min(TIMEOUT_CHECK_MS, limits.headersMs),
    },
    frameworkErrors: (error, request, reply) => {
      void answerError(config, error, request, reply);
    },
    clientErrorHandler: (error, socket) => answerClientError(config, error, socket),
  });
  app.server.maxConnections = limits.maxConnections;
  app.decorateRequest('summary', () => ({}));
  app.decorateRequest('failure', undefined);
  app.removeAllContentTypeParsers();
  app.addContentTypeParser('application/json', { parseAs: 'buffer' }, (_request, body, done) => {
    try {
      done(null, parseJsonBody(body as Buffer));
    } catch (error) {
      done(error as Error);
    }
  });
  app.addHook('onRequest', async (request, reply) => {
    logOnClose(request, reply);
    checkKey(config.apiKey, request);
    checkMediaType(request);
  });
  app.setErrorHandler((error: FastifyError, request, reply) => answerError(config, error, request, reply));
  app.setNotFoundHandler((request, reply) => {
    const path = pathOf(request.url);
    const methods = (['GET', 'POST'] as const).filter((method) => app.hasRoute({ method, url: path }));
    if (methods.length === 0) throw HttpError.of('UNKNOWN_ROUTE', null, request.method, path);
    void reply.header('allow', methods.join(', '));
    throw HttpError.of('WRONG_METHOD', null, request.method, path, methods.join(', '));
  });
  return app;
}

function pathOf(url: string): string {
  return url.split('?', 1)[0]!.slice(0, MAX_LOGGED_PATH);
}

/** Writes the one log line: at the end of the answer, or when the client is gone. */
function logOnClose(request: FastifyRequest, reply: FastifyReply): void {
  const startedAt = performance.now();
  reply.raw.once('close', () => {
    const { writableFinished, statusCode } = reply.raw;
    const ms = Math.round((performance.now() - startedAt) * 10) / 10;
    const http = { method: request.method, path: pathOf(request.url), status: statusCode, ms, error: request.failure };
    const line = { ...http, ...request.summary() };
    request.log.info(writableFinished ? line : { ...line, disconnected: true }, 'request');
  });
}

/** Digests have one length, and comparing them says nothing about where two keys differ. */
function digest(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}

/** All routes need the key but those for probes, which vLLM and SGLang leave open too. */
function checkKey(apiKey: string | null, request: FastifyRequest): void {
  if (apiKey === null || /^\/(health|health_generate|metrics|version)$/.test(pathOf(request.url))) return;
  const given = /^Bearer (.+)$/.exec(request.headers.authorization ?? '')?.[1] ?? '';
  if (!timingSafeEqual(digest(given), digest(apiKey))) throw HttpError.of('UNAUTHORIZED', null);
}

function checkMediaType({ headers }: FastifyRequest): void {
  const encoding = headers['content-encoding'];
  if (encoding !== undefined && encoding.toLowerCase() !== 'identity') {
    throw HttpError.of('BAD_MEDIA_TYPE', null, `content-encoding ${encoding.slice(0, 40)}`);
  }
  const charset = /charset\s*=\s*"?([^\s;"]*)/i.exec(headers['content-type'] ?? '')?.[1];
  if (charset !== undefined && !/^(utf-?8|us-ascii)$/i.test(charset)) {
    throw HttpError.of('BAD_MEDIA_TYPE', null, `charset ${charset.slice(0, 40)}`);
  }
}

function answerError(config: ShellConfig, error: unknown, request: FastifyRequest, reply: FastifyReply): FastifyReply {
  const known = toHttpError(config, error, request);
  if (known.body.error.code === null && known.status === 500) request.log.error({ err: error }, 'request failed');
  request.failure = known.message;
  if (known.status === 429 || known.status === 503) void reply.header('retry-after', '1');
  if (known.status === 401) void reply.header('www-authenticate', 'Bearer');
  const { errorBody } = request.routeOptions.config;
  return reply.code(known.status).send(errorBody === undefined ? known.body : errorBody(known));
}

/** Makes an `HttpError` of what Fastify or the engine throws. */
function toHttpError(config: ShellConfig, error: unknown, { headers }: FastifyRequest): HttpError {
  if (error instanceof HttpError) return error;
  if (error instanceof RoutedExpertsError) return HttpError.from(error);
  const { code, statusCode, message } = error as Partial<FastifyError>;
  if (code === 'FST_ERR_CTP_BODY_TOO_LARGE') return HttpError.of('BODY_TOO_LARGE', null, config.limits.bodyBytes);
  if (code === 'FST_ERR_CTP_INVALID_MEDIA_TYPE') {
    return HttpError.of('BAD_MEDIA_TYPE', null, `content-type ${(headers['content-type'] ?? 'none').slice(0, 40)}`);
  }
  if (statusCode !== undefined && statusCode < 500) return HttpError.of('BAD_HTTP', null, message ?? 'unknown');
  return HttpError.from(RoutedExpertsError.of('INVARIANT', message ?? String(error)));
}

/** The answer to bytes that are no HTTP or come too slowly: there is no request yet, so it goes to the socket. */
function answerClientError(config: ShellConfig, error: NodeJS.ErrnoException, socket: Socket): void {
  if (error.code === 'ECONNRESET' || socket.destroyed) return;
  if (!socket.writable) {
    socket.destroy(error);
    return;
  }
  const { status, body } = clientError(config, error);
  const text = JSON.stringify(body);
  const head = `HTTP/1.1 ${status}\r\nconnection: close\r\ncontent-type: application/json; charset=utf-8\r\n`;
  socket.end(`${head}content-length: ${Buffer.byteLength(text)}\r\n\r\n${text}`, () => socket.destroy());
}

function clientError({ limits }: ShellConfig, error: NodeJS.ErrnoException): { status: string; body: unknown } {
  if (error.code === 'ERR_HTTP_REQUEST_TIMEOUT') {
    const { body } = HttpError.of('TOO_SLOW', null, limits.requestMs / 1000);
    return { status: '408 Request Timeout', body };
  }
  if (error.code === 'HPE_HEADER_OVERFLOW') {
    const { body } = HttpError.of('HEADERS_TOO_LARGE', null, limits.headerBytes);
    return { status: '431 Request Header Fields Too Large', body };
  }
  return { status: '400 Bad Request', body: HttpError.of('BAD_HTTP', null, error.code ?? 'unknown').body };
}
