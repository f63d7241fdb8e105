/**
 * `POST /reset_prefix_cache`, vLLM's: query parameters `reset_running_requests` and `reset_external`, an empty answer
 * of status 200. vLLM's first versions say 200 whatever came of it; later ones, like this server, say 409 if the cache
 * is as it was.
 */

import type { FastifyReply, FastifyRequest } from 'fastify';
import type { LiveEngine } from '../host/live-engine.ts';
import { badField } from './body/body-fields.ts';
import { HttpError } from './http-error.ts';

/** The words that FastAPI reads as a boolean. */
const FLAGS: Readonly<Record<string, boolean>> = Object.fromEntries([
  ...['true', '1', 'yes', 'y', 'on', 't'].map((text) => [text, true]),
  ...['false', '0', 'no', 'n', 'off', 'f'].map((text) => [text, false]),
]);

/** Throws CACHE_IN_USE, and has changed nothing, while blocks are held. */
export function resetPrefixCache(engine: LiveEngine, { query }: FastifyRequest, reply: FastifyReply): FastifyReply {
  const parameters = query as Readonly<Record<string, unknown>>;
  const resetRunning = flag(parameters, 'reset_running_requests');
  // Blocks in host memory and files go with every reset, which may be there because the weights have changed. KV that
  // is kept was promised to other engines, and is no cache.
  flag(parameters, 'reset_external');
  if (!engine.resetPrefixCache(resetRunning)) throw HttpError.of('CACHE_IN_USE', null, holdersOf(engine), resetRunning);
  return reply.code(200).send('');
}

function holdersOf(engine: LiveEngine): string {
  const { numRunning, numWaitingForRemoteKvs, numKeptBlocks } = engine.stats();
  const holders = [
    [numRunning, 'running requests'],
    [numWaitingForRemoteKvs, 'requests whose KV is being loaded'],
    [numKeptBlocks, 'blocks kept for other engines'],
  ] as const;
  return holders
    .filter(([count]) => count > 0)
    .map(([count, what]) => `${count} ${what}`)
    .join(', ');
}

function flag(parameters: Readonly<Record<string, unknown>>, name: string): boolean {
  const given = parameters[name];
  if (given === undefined) return false;
  const text = typeof given === 'string' ? given.toLowerCase() : '';
  if (!Object.hasOwn(FLAGS, text)) throw badField(name, given, 'true or false, once');
  return FLAGS[text]!;
}
