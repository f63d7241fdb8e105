/** vLLM's development endpoints (`entrypoints/serve/dev`), which SkyRL and prime-rl have by the same paths. */

import type { ControlRoute, ControlServices } from '../../control/control-route.ts';
import { oneOf, queryFlag } from '../../control/control-route.ts';
import { resetPrefixCache } from '../../control/prefix-cache.ts';
import type { BodyFields } from '../../body/body-fields.ts';
import { badField } from '../../body/body-fields.ts';

const MODES = { abort: 'abort', wait: 'wait', keep: 'keep' } as const;
const MAX_VERSION = 256;

const done = (message: string) => (): object => ({ message });

export const vllmControl: readonly ControlRoute[] = [
  {
    methods: ['POST'],
    paths: ['/pause'],
    handle: async ({ query }, { weights }) => {
      const mode = oneOf('mode', query['mode'] ?? 'abort', MODES);
      await weights.pause({ mode, clearsCache: queryFlag(query, 'clear_cache', true) });
      return { status: 'paused' };
    },
  },
  {
    methods: ['POST'],
    paths: ['/resume'],
    handle: (_, { weights }) => {
      weights.resume();
      return { status: 'resumed' };
    },
  },
  { methods: ['GET'], paths: ['/is_paused'], handle: (_, { weights }) => ({ is_paused: weights.isPaused }) },
  {
    methods: ['POST'],
    paths: ['/abort_requests'],
    handle: ({ fields }, { running }) => {
      const ids = requestIds(fields);
      const aborted = running.abort((id) => ids.size === 0 || ids.has(id));
      return { status: 'aborted', aborted };
    },
  },
  {
    methods: ['POST'],
    paths: ['/init_weight_transfer_engine'],
    handle: done('weights are made up: nothing was set up'),
  },
  { methods: ['POST'], paths: ['/start_weight_update'], handle: done('weight update started') },
  {
    methods: ['POST'],
    paths: ['/update_weights'],
    handle: ({ fields }, services) => {
      // Tensors and paths are never opened.
      for (const name of ['update_info', 'weight_dir']) fields.raw(name);
      return updated(fields, services);
    },
  },
  { methods: ['POST'], paths: ['/finish_weight_update'], handle: ({ fields }, services) => updated(fields, services) },
  { methods: ['GET'], paths: ['/weight_info'], handle: (_, { weights }) => ({ weight_version: weights.version }) },
  {
    methods: ['POST'],
    paths: ['/reset_prefix_cache'],
    handle: ({ fields, query }, { host }) => {
      // Blocks in host memory and files go with every reset, which may be there because the weights have changed.
      // KV that is kept was promised to other engines, and is no cache.
      queryFlag(query, 'reset_external', false);
      const inBody = fields.flag('reset_running_requests');
      const problem = resetPrefixCache(host.engine, queryFlag(query, 'reset_running_requests', inBody));
      return problem === null ? { success: true } : { success: false, message: problem };
    },
  },
];

function updated(fields: BodyFields, { weights }: ControlServices): object {
  const version = fields.text('weight_version', MAX_VERSION);
  weights.update({ version, clearsCache: false, abortsRequests: false });
  return { status: 'ok', message: `the weights are version ${weights.version}` };
}

function requestIds(fields: BodyFields): ReadonlySet<unknown> {
  const ids = fields.raw('request_ids') ?? [];
  if (Array.isArray(ids)) return new Set(ids);
  throw badField('request_ids', ids, 'a list of request ids; an empty one means all');
}
