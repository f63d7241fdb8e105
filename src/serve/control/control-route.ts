/** Endpoints that say or change how the server runs: each dialect has a table of its own. */

import type { FastifyInstance } from 'fastify';
import { isObject } from '../../rows/json-object.ts';
import { BodyFields, badField } from '../body/body-fields.ts';
import type { JobLimits } from '../body/generation-job.ts';
import type { ByteTokenizer } from '../body/tokenizer.ts';
import type { EngineHost } from '../engine-host.ts';
import type { HttpError } from '../http-error.ts';
import type { RunningAnswers } from './running-answers.ts';
import type { WeightControl } from './weight-control.ts';

export type ControlServices = Readonly<{
  host: EngineHost;
  weights: WeightControl;
  running: RunningAnswers;
  limits: JobLimits;
  tokenizer: ByteTokenizer;
}>;

/** What was sent: the fields of the body, of which there may be none, and the query parameters. */
export type ControlRequest = Readonly<{ fields: BodyFields; query: Readonly<Record<string, unknown>> }>;

export type ControlRoute = Readonly<{
  methods: readonly ('GET' | 'POST')[];
  /** Several names of one endpoint. */
  paths: readonly string[];
  /** Returns the answer's body, or `null` for an empty one; throws HttpError. */
  handle: (request: ControlRequest, services: ControlServices) => unknown;
  /** The body of an error; absent: OpenAI's. */
  errorBody?: (error: HttpError) => unknown;
}>;

declare module 'fastify' {
  interface FastifyContextConfig {
    errorBody?: (error: HttpError) => unknown;
  }
}

export function addControlRoutes(
  app: FastifyInstance,
  routes: readonly ControlRoute[],
  services: ControlServices,
): void {
  for (const { methods, paths, handle, errorBody } of routes) {
    for (const url of paths) {
      app.route({
        method: [...methods],
        url,
        config: errorBody === undefined ? {} : { errorBody },
        handler: async ({ body, query }, reply) => {
          const fields = new BodyFields(isObject(body) ? body : {});
          const answer = await handle({ fields, query: query as Readonly<Record<string, unknown>> }, services);
          return answer === null ? reply.code(200).send('') : reply.code(200).send(answer);
        },
      });
    }
  }
}

/** The words that FastAPI reads as a boolean. */
const FLAGS: Readonly<Record<string, boolean>> = Object.fromEntries([
  ...['true', '1', 'yes', 'y', 'on', 't'].map((text) => [text, true]),
  ...['false', '0', 'no', 'n', 'off', 'f'].map((text) => [text, false]),
]);

/** A query parameter. Throws BAD_FIELD. */
export function queryFlag(query: ControlRequest['query'], name: string, usual: boolean): boolean {
  const given = query[name];
  if (given === undefined) return usual;
  const text = typeof given === 'string' ? given.toLowerCase() : '';
  if (!Object.hasOwn(FLAGS, text)) throw badField(name, given, 'true or false, once');
  return FLAGS[text]!;
}

/** A value of a table by the name that was sent. Throws BAD_FIELD. */
export function oneOf<T>(name: string, given: unknown, table: Readonly<Record<string, T>>): T {
  if (typeof given === 'string' && Object.hasOwn(table, given)) return table[given]!;
  throw badField(name, given, `one of: ${Object.keys(table).join(', ')}`);
}
