/** What the thread of a data-parallel engine is asked, one thing after the other, and its replies. */

import type { DesignReference } from '../../../contract/config.ts';
import type { DeviceInfo } from '../../../contract/device.ts';
import type { ErrorCode } from '../../../contract/errors.ts';
import type { SessionConfig } from '../../../host/design-session.ts';
import type { ServeOptions, ServeResult } from '../serve-workload.ts';

export type EngineThreadConfig = Readonly<{ reference: DesignReference; session: SessionConfig }>;

export type EngineTask =
  | Readonly<{ kind: 'start' }>
  | Readonly<{ kind: 'serve'; options: Omit<ServeOptions, 'session'> }>
  | Readonly<{ kind: 'close' }>;

export type EngineReply =
  | Readonly<{ kind: 'started'; devices: readonly DeviceInfo[] }>
  | Readonly<{ kind: 'served'; result: ServeResult }>
  /** `isStuck`: a rank stands still, and keeps the engine's thread for as long as it does. */
  | Readonly<{ kind: 'closed'; isStuck: boolean }>
  /** Errors travel as data: a cloned Error loses its code. */
  | Readonly<{ kind: 'failed'; code: ErrorCode; message: string }>;
