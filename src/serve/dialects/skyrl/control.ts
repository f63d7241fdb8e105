/** What SkyRL asks beside vLLM's endpoints: its engines are asked for their size, and sleep between two phases. */

import type { ControlRoute } from '../../control/control-route.ts';

export const skyrlControl: readonly ControlRoute[] = [
  {
    methods: ['GET'],
    paths: ['/get_world_size'],
    handle: (_, { host }) => ({ world_size: host.options.numRanks }),
  },
  {
    methods: ['POST'],
    paths: ['/collective_rpc'],
    handle: ({ fields }, { host }) => {
      // The workers have no methods that a client could call: each of them has nothing to return.
      for (const name of ['method', 'args', 'kwargs', 'timeout']) fields.raw(name);
      return { results: Array.from({ length: host.options.numRanks }, () => null) };
    },
  },
  // No memory of a trainer is shared: there is nothing to give back.
  { methods: ['POST'], paths: ['/sleep', '/wake_up'], handle: () => null },
  { methods: ['GET'], paths: ['/is_sleeping'], handle: () => ({ is_sleeping: false }) },
];
