import { Column, CreateDateColumn, Entity, PrimaryColumn } from 'typeorm';
import type { RevocationType } from './revoked.ts';

/** A credential that no longer counts, though it may look good. */
@Entity('revocations')
export class RevocationEntity {
  @PrimaryColumn('uuid')
  id: string;

  @Column('text')
  type: RevocationType;

  @Column('text')
  value: string;

  /** Null: for every tenant. */
  @Column('text', { name: 'tenant_id', nullable: true })
  tenantId: string | null;

  @CreateDateColumn({ name: 'created_at', type: 'timestamptz' })
  createdAt: Date;

  @Column('timestamptz', { name: 'expires_at', nullable: true })
  expiresAt: Date | null;
}
