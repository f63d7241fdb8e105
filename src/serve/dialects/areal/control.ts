/** AReaL on vLLM: its own names for pause, update and resume. */

import type { ControlRoute } from '../../control/control-route.ts';

const done = (message: string): object => ({ success: true, message });

export const arealControl: readonly ControlRoute[] = [
  {
    methods: ['POST'],
    paths: ['/areal_pause_generation'],
    handle: async (_, { weights }) => {
      await weights.pause({ mode: 'abort', clearsCache: false });
      return done('generation is paused');
    },
  },
  {
    methods: ['POST'],
    paths: ['/areal_continue_generation'],
    handle: (_, { weights }) => {
      weights.resume();
      return done('generation goes on');
    },
  },
  {
    methods: ['POST'],
    paths: ['/areal_update_weights'],
    handle: (_, { weights }) => {
      weights.update({ version: null, clearsCache: true, abortsRequests: false });
      return done('the weights are noted');
    },
  },
];
