import { Column, CreateDateColumn, Entity, PrimaryColumn } from 'typeorm';
import type { PrincipalAttributes } from './principal.ts';

/** A long-lived credential of a program. The key itself is nowhere: only its keyed hash is. */
@Entity('api_keys')
export class ApiKeyEntity {
  @PrimaryColumn('uuid')
  id: string;

  @Column('text', { name: 'tenant_id' })
  tenantId: string;

  @Column('text')
  subject: string;

  @Column('text', { array: true })
  roles: string[];

  @Column('jsonb')
  attributes: PrincipalAttributes;

  /** Null: all that the rules allow. */
  @Column('text', { array: true, nullable: true })
  models: string[] | null;

  @Column('bytea')
  hash: Buffer;

  /** Which pepper the hash was made with. */
  @Column('text')
  pepper: string;

  @Column('text', { name: 'created_by' })
  createdBy: string;

  @CreateDateColumn({ name: 'created_at', type: 'timestamptz' })
  createdAt: Date;

  @Column('timestamptz', { name: 'expires_at', nullable: true })
  expiresAt: Date | null;

  /** From then on it no longer counts; in the future, while a rotation overlaps. */
  @Column('timestamptz', { name: 'revoked_at', nullable: true })
  revokedAt: Date | null;

  /** Coarse on purpose: that a key is in use matters, not when. */
  @Column('date', { name: 'last_used_on', nullable: true })
  lastUsedOn: string | null;
}
