/** SGLang's control endpoints (`entrypoints/http_server.py`). */

import { badField } from '../../body/body-fields.ts';
import type { ControlRoute } from '../../control/control-route.ts';
import { oneOf } from '../../control/control-route.ts';
import { resetPrefixCache } from '../../control/prefix-cache.ts';
import { HttpError } from '../../http-error.ts';

const MODES = { abort: 'abort', retract: 'retract', in_place: 'keep' } as const;
const MAX_NAME = 256;

const done = (message: string): object => ({ success: true, message });
const failed = ({ message }: HttpError): object => ({ success: false, message });

/** Fields that say where weights are: they are never opened. */
const UNOPENED = [
  'model_path',
  'load_format',
  'names',
  'dtypes',
  'shapes',
  'group_name',
  'serialized_named_tensors',
  'backend',
  'master_address',
  'master_port',
  'rank_offset',
  'world_size',
  'torch_empty_cache',
];

export const sglangControl: readonly ControlRoute[] = [
  {
    methods: ['GET'],
    paths: ['/server_info', '/get_server_info'],
    handle: (_, { host, limits, weights }) => ({
      model_path: host.options.model.name,
      served_model_name: limits.servedModel,
      tp_size: host.options.numRanks / (host.options.pipelineSplit?.length ?? 1),
      pp_size: host.options.pipelineSplit?.length ?? 1,
      dp_size: 1,
      disaggregation_mode: 'null',
      enable_return_routed_experts: limits.hasRows,
      context_length: limits.maxModelLen,
      weight_version: weights.version,
      internal_states: [],
    }),
  },
  {
    methods: ['GET'],
    paths: ['/model_info', '/get_model_info'],
    handle: (_, { host, weights }) => ({
      model_path: host.options.model.name,
      tokenizer_path: host.options.model.name,
      is_generation: true,
      weight_version: weights.version,
    }),
  },
  {
    methods: ['GET'],
    paths: ['/get_weight_version', '/weight_version'],
    handle: (_, { weights }) => ({ weight_version: weights.version }),
  },
  {
    methods: ['GET', 'POST'],
    paths: ['/flush_cache'],
    handle: (_, { host }) => {
      const { numRequests } = host;
      const problem = numRequests > 0 ? `${numRequests} requests run` : resetPrefixCache(host.engine, false);
      if (problem === null) return { success: true, message: 'the cache is flushed' };
      throw HttpError.of('CACHE_IN_USE', null, problem);
    },
  },
  {
    methods: ['GET'],
    paths: ['/v1/loads'],
    handle: (_, { host, running }) => {
      const { numRunning, numWaiting, numWaitingForRemoteKvs } = host.engine.stats();
      const atTheDoor = Math.max(0, running.size - host.numGenerations);
      const num_waiting_reqs = numWaiting + numWaitingForRemoteKvs + atTheDoor;
      return { loads: [{ dp_rank: 0, num_running_reqs: numRunning, num_waiting_reqs }] };
    },
  },
  {
    methods: ['POST'],
    paths: ['/abort_request'],
    handle: ({ fields }, { running }) => {
      if (fields.flag('abort_all')) running.abort(() => true);
      else {
        const rid = fields.text('rid', MAX_NAME);
        if (rid === null) throw badField('rid', rid, 'a request id, or abort_all: true');
        const isPrefix = fields.flag('prefix');
        running.abort((id) => (isPrefix ? id.startsWith(rid) : id === rid));
      }
      return null;
    },
  },
  {
    methods: ['POST'],
    paths: ['/pause_generation'],
    handle: async ({ fields }, { weights }) => {
      const mode = oneOf('mode', fields.raw('mode') ?? 'abort', MODES);
      await weights.pause({ mode, clearsCache: false });
      return { status: 'ok', message: 'generation is paused' };
    },
  },
  {
    methods: ['POST'],
    paths: ['/continue_generation'],
    handle: (_, { weights }) => {
      weights.resume();
      return { status: 'ok', message: 'generation goes on' };
    },
  },
  {
    methods: ['POST'],
    paths: ['/update_weights_from_disk', '/update_weights_from_distributed', '/update_weights_from_tensor'],
    handle: ({ fields }, { weights }) => {
      for (const name of UNOPENED) fields.raw(name);
      weights.update({
        version: fields.text('weight_version', MAX_NAME),
        clearsCache: fields.flag('flush_cache', true),
        abortsRequests: fields.flag('abort_all_requests'),
      });
      return done(`the weights are version ${weights.version}`);
    },
    errorBody: failed,
  },
  {
    methods: ['POST'],
    paths: ['/init_weights_update_group', '/destroy_weights_update_group'],
    handle: () => done('weights are made up: nothing was set up'),
    errorBody: failed,
  },
  {
    // vLLM has it too: its clients read `new_version`.
    methods: ['POST'],
    paths: ['/update_weight_version'],
    handle: ({ fields }, { weights, running }) => {
      const version = fields.text('new_version', MAX_NAME);
      if (version === null) throw badField('new_version', version, 'a string');
      weights.rename(version);
      if (fields.flag('abort_all_requests')) running.abort(() => true);
      return { ...done(`the weights are version ${version}`), new_version: version };
    },
    errorBody: failed,
  },
  {
    // No memory of a trainer is shared, and no update has two halves.
    methods: ['POST'],
    paths: ['/release_memory_occupation', '/resume_memory_occupation', '/begin_weight_update', '/end_weight_update'],
    handle: () => done('nothing to do'),
  },
];
