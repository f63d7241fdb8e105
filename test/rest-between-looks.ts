/** Set-up of files that wait for a device in their own thread: a software adapter needs the core that this spares. */

import { restBetweenLooks } from '../src/kernels/device/polling.ts';

restBetweenLooks();
