import type { EntityManager } from 'typeorm';
import { notify } from '../shared/notifications.ts';

/** What notifications of changed access are about. */
export const ACCESS_TOPIC = 'access';

/** Part of every change of policies, revocations and keys: replicas see by the number that there is something new. Changes so follow each other. */
export async function moveAccessRevision(manager: EntityManager): Promise<void> {
  await manager.query('UPDATE access_revision SET number = number + 1');
  await notify(manager, ACCESS_TOPIC);
}
