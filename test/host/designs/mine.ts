/** A design of the caller's own that works: the halves of `deltas` under another name. */

import { designs, type Design } from '../../../src/capture/designs.ts';

const { engineHalf, workerHalf } = designs.deltas;
const mine: Design = { name: 'mine', gaps: [], engineHalf, workerHalf };

export default mine;
