-- A ledger of version 2 as it was released, with rows in every state.
BEGIN TRANSACTION;
CREATE TABLE association (
  id TEXT PRIMARY KEY, listener TEXT NOT NULL, calling_ae TEXT NOT NULL, called_ae TEXT NOT NULL,
  opened_at REAL NOT NULL, ended_at REAL, how TEXT
) STRICT;
INSERT INTO "association" VALUES('a1','listen','MODALITY','EVENRAY',1700000001.0,1700000077.0,'released');
INSERT INTO "association" VALUES('a2','listen','MODALITY','EVENRAY',1700000002.0,NULL,NULL);
CREATE TABLE batch (
  id INTEGER PRIMARY KEY, study_key TEXT NOT NULL, study_instance_uid TEXT NOT NULL, number INTEGER NOT NULL,
  state TEXT NOT NULL, first_at REAL NOT NULL, last_at REAL NOT NULL, note TEXT NOT NULL DEFAULT '',
  attempts INTEGER NOT NULL DEFAULT 0, deaths INTEGER NOT NULL DEFAULT 0, next_try REAL NOT NULL DEFAULT 0,
  owner TEXT, lease_until REAL, fence INTEGER NOT NULL DEFAULT 0
, settled_at REAL, undecided INTEGER NOT NULL DEFAULT 0, cleared INTEGER NOT NULL DEFAULT 0) STRICT;
INSERT INTO "batch" VALUES(1,'1.1/p','1.1',1,'reported',1700000003.0,1700000003.0,'',0,0,0.0,NULL,NULL,3,NULL,0,0);
INSERT INTO "batch" VALUES(2,'1.2/p','1.2',1,'void',1700000032.0,1700000032.0,'',0,0,0.0,NULL,NULL,0,NULL,0,0);
INSERT INTO "batch" VALUES(3,'1.3/p','1.3',1,'parked',1700000039.0,1700000039.0,'unexpected',0,0,0.0,NULL,NULL,14,NULL,0,0);
INSERT INTO "batch" VALUES(4,'1.4/p','1.4',1,'reporting',1700000047.0,1700000047.0,'',0,0,0.0,'work-1',1700000113.0,17,NULL,0,0);
INSERT INTO "batch" VALUES(5,'1.5/p','1.5',1,'closed',1700000054.0,1700000054.0,'',0,0,0.0,NULL,NULL,0,NULL,0,0);
INSERT INTO "batch" VALUES(6,'1.7/p','1.7',1,'open',1700000060.0,1700000060.0,'',0,0,0.0,NULL,NULL,0,NULL,0,0);
INSERT INTO "batch" VALUES(7,'1.6/p','1.6',1,'closed',1700000066.0,1700000066.0,'',0,0,0.0,NULL,NULL,0,NULL,1,0);
INSERT INTO "batch" VALUES(8,'1.8/p','1.8',1,'open',1700000071.0,1700000071.0,'',0,0,0.0,NULL,NULL,0,NULL,1,0);
CREATE TABLE commitment (
  transaction_uid TEXT NOT NULL, delivery INTEGER NOT NULL REFERENCES delivery, PRIMARY KEY (transaction_uid, delivery)
) STRICT;
INSERT INTO "commitment" VALUES('2.25.77',1);
INSERT INTO "commitment" VALUES('2.25.77',2);
CREATE TABLE damage (
  path TEXT PRIMARY KEY, what TEXT NOT NULL, ref INTEGER NOT NULL, sop_instance_uid TEXT NOT NULL,
  reason TEXT NOT NULL, found_at REAL NOT NULL
) STRICT;
INSERT INTO "damage" VALUES('originals/03/3.dcm','instance',1,'1.2.3','its file is gone',1700000080.0);
CREATE TABLE delivery (
  id INTEGER PRIMARY KEY, destination TEXT NOT NULL, object INTEGER NOT NULL REFERENCES object, state TEXT NOT NULL,
  status INTEGER, note TEXT NOT NULL DEFAULT '',
  transaction_uid TEXT, asked_at REAL, asked INTEGER NOT NULL DEFAULT 0,
  attempts INTEGER NOT NULL DEFAULT 0, deaths INTEGER NOT NULL DEFAULT 0, next_try REAL NOT NULL DEFAULT 0,
  owner TEXT, lease_until REAL, fence INTEGER NOT NULL DEFAULT 0,
  UNIQUE (destination, object)
) STRICT;
INSERT INTO "delivery" VALUES(1,'pacs',1,'delivered',0,'storage commitment','2.25.77',1700000016.0,1,0,0,0.0,NULL,NULL,4);
INSERT INTO "delivery" VALUES(2,'pacs',2,'awaiting',0,'stored','2.25.77',1700000016.0,1,0,0,1700000316.0,NULL,NULL,4);
INSERT INTO "delivery" VALUES(3,'plain',2,'parked',NULL,'refused',NULL,NULL,0,0,0,0.0,NULL,NULL,5);
INSERT INTO "delivery" VALUES(4,'pacs',3,'stored',0,'stored',NULL,NULL,0,0,0,0.0,NULL,NULL,4);
INSERT INTO "delivery" VALUES(5,'plain',4,'pending',NULL,'',NULL,NULL,0,0,0,0.0,NULL,NULL,0);
INSERT INTO "delivery" VALUES(6,'plain2',5,'sending',NULL,'',NULL,NULL,0,0,0,0.0,'deliver-1',1700000123.0,21);
CREATE TABLE fence (value INTEGER NOT NULL) STRICT;
INSERT INTO "fence" VALUES(26);
CREATE TABLE history (
  id INTEGER PRIMARY KEY, at REAL NOT NULL, what TEXT NOT NULL, ref INTEGER NOT NULL,
  before TEXT, step TEXT NOT NULL, after TEXT NOT NULL, detail TEXT NOT NULL DEFAULT ''
) STRICT;
INSERT INTO "history" VALUES(1,1700000003.0,'instance',1,NULL,'receive','received','');
INSERT INTO "history" VALUES(2,1700000004.0,'instance',1,'received','read','reading','work-1');
INSERT INTO "history" VALUES(3,1700000005.0,'batch',1,NULL,'open','open','');
INSERT INTO "history" VALUES(4,1700000005.0,'instance',1,'reading','admit','waiting','');
INSERT INTO "history" VALUES(5,1700000005.0,'delivery',1,NULL,'queue','pending','original to pacs');
INSERT INTO "history" VALUES(6,1700000006.0,'instance',1,'waiting','claim','claimed','work-1');
INSERT INTO "history" VALUES(7,1700000007.0,'instance',1,'claimed','decide','decided','passed');
INSERT INTO "history" VALUES(8,1700000007.0,'delivery',2,NULL,'queue','pending','secondary_capture to pacs');
INSERT INTO "history" VALUES(9,1700000007.0,'delivery',3,NULL,'queue','pending','secondary_capture to plain');
INSERT INTO "history" VALUES(10,1700000008.0,'batch',1,'open','close','closed','quiet for 20.0 s');
INSERT INTO "history" VALUES(11,1700000009.0,'batch',1,'closed','claim','reporting','work-1');
INSERT INTO "history" VALUES(12,1700000010.0,'batch',1,'reporting','report','reported','');
INSERT INTO "history" VALUES(13,1700000010.0,'instance',1,'decided','report','reported','batch 1');
INSERT INTO "history" VALUES(14,1700000010.0,'delivery',4,NULL,'queue','pending','structured_report to pacs');
INSERT INTO "history" VALUES(15,1700000011.0,'delivery',1,'pending','claim','sending','deliver-1');
INSERT INTO "history" VALUES(16,1700000011.0,'delivery',2,'pending','claim','sending','deliver-1');
INSERT INTO "history" VALUES(17,1700000011.0,'delivery',4,'pending','claim','sending','deliver-1');
INSERT INTO "history" VALUES(18,1700000012.0,'delivery',1,'sending','store','stored','stored');
INSERT INTO "history" VALUES(19,1700000013.0,'delivery',2,'sending','store','stored','stored');
INSERT INTO "history" VALUES(20,1700000014.0,'delivery',4,'sending','store','stored','stored');
INSERT INTO "history" VALUES(21,1700000016.0,'delivery',1,'stored','ask','awaiting','2.25.77');
INSERT INTO "history" VALUES(22,1700000016.0,'delivery',2,'stored','ask','awaiting','2.25.77');
INSERT INTO "history" VALUES(23,1700000017.0,'delivery',1,'awaiting','deliver','delivered','storage commitment');
INSERT INTO "history" VALUES(24,1700000018.0,'delivery',3,'pending','claim','sending','deliver-1');
INSERT INTO "history" VALUES(25,1700000019.0,'delivery',3,'sending','park','parked','refused');
INSERT INTO "history" VALUES(26,1700000020.0,'instance',2,NULL,'receive','received','');
INSERT INTO "history" VALUES(27,1700000021.0,'instance',2,'received','read','reading','work-1');
INSERT INTO "history" VALUES(28,1700000022.0,'instance',2,'reading','repeat','duplicate','same bytes as instance 1');
INSERT INTO "history" VALUES(29,1700000023.0,'instance',3,NULL,'receive','received','');
INSERT INTO "history" VALUES(30,1700000024.0,'instance',3,'received','read','reading','work-1');
INSERT INTO "history" VALUES(31,1700000025.0,'instance',3,'reading','clash','conflict','same UID, other bytes than instance 1');
INSERT INTO "history" VALUES(32,1700000026.0,'instance',4,NULL,'receive','received','');
INSERT INTO "history" VALUES(33,1700000027.0,'instance',4,'received','read','reading','work-1');
INSERT INTO "history" VALUES(34,1700000028.0,'instance',4,'reading','recognise','own','');
INSERT INTO "history" VALUES(35,1700000028.0,'delivery',5,NULL,'queue','pending','original to plain');
INSERT INTO "history" VALUES(36,1700000029.0,'instance',5,NULL,'receive','received','');
INSERT INTO "history" VALUES(37,1700000030.0,'instance',5,'received','read','reading','work-1');
INSERT INTO "history" VALUES(38,1700000031.0,'instance',5,'reading','park','parked','no DICOM file');
INSERT INTO "history" VALUES(39,1700000032.0,'instance',6,NULL,'receive','received','');
INSERT INTO "history" VALUES(40,1700000033.0,'instance',6,'received','read','reading','work-1');
INSERT INTO "history" VALUES(41,1700000034.0,'batch',2,NULL,'open','open','');
INSERT INTO "history" VALUES(42,1700000034.0,'instance',6,'reading','admit','waiting','');
INSERT INTO "history" VALUES(43,1700000035.0,'instance',6,'waiting','claim','claimed','work-1');
INSERT INTO "history" VALUES(44,1700000036.0,'instance',6,'claimed','park','parked','broken');
INSERT INTO "history" VALUES(45,1700000037.0,'batch',2,'open','close','closed','quiet for 20.0 s');
INSERT INTO "history" VALUES(46,1700000038.0,'batch',2,'closed','void','void','');
INSERT INTO "history" VALUES(47,1700000039.0,'instance',7,NULL,'receive','received','');
INSERT INTO "history" VALUES(48,1700000040.0,'instance',7,'received','read','reading','work-1');
INSERT INTO "history" VALUES(49,1700000041.0,'batch',3,NULL,'open','open','');
INSERT INTO "history" VALUES(50,1700000041.0,'instance',7,'reading','admit','waiting','');
INSERT INTO "history" VALUES(51,1700000042.0,'instance',7,'waiting','claim','claimed','work-1');
INSERT INTO "history" VALUES(52,1700000043.0,'instance',7,'claimed','decide','decided','passed');
INSERT INTO "history" VALUES(53,1700000044.0,'batch',3,'open','close','closed','quiet for 20.0 s');
INSERT INTO "history" VALUES(54,1700000045.0,'batch',3,'closed','claim','reporting','work-1');
INSERT INTO "history" VALUES(55,1700000046.0,'batch',3,'reporting','park','parked','unexpected');
INSERT INTO "history" VALUES(56,1700000047.0,'instance',8,NULL,'receive','received','');
INSERT INTO "history" VALUES(57,1700000048.0,'instance',8,'received','read','reading','work-1');
INSERT INTO "history" VALUES(58,1700000049.0,'batch',4,NULL,'open','open','');
INSERT INTO "history" VALUES(59,1700000049.0,'instance',8,'reading','admit','waiting','');
INSERT INTO "history" VALUES(60,1700000050.0,'instance',8,'waiting','claim','claimed','work-1');
INSERT INTO "history" VALUES(61,1700000051.0,'instance',8,'claimed','decide','decided','passed');
INSERT INTO "history" VALUES(62,1700000052.0,'batch',4,'open','close','closed','quiet for 20.0 s');
INSERT INTO "history" VALUES(63,1700000053.0,'batch',4,'closed','claim','reporting','work-1');
INSERT INTO "history" VALUES(64,1700000054.0,'instance',9,NULL,'receive','received','');
INSERT INTO "history" VALUES(65,1700000055.0,'instance',9,'received','read','reading','work-1');
INSERT INTO "history" VALUES(66,1700000056.0,'batch',5,NULL,'open','open','');
INSERT INTO "history" VALUES(67,1700000056.0,'instance',9,'reading','admit','waiting','');
INSERT INTO "history" VALUES(68,1700000057.0,'instance',9,'waiting','claim','claimed','work-1');
INSERT INTO "history" VALUES(69,1700000058.0,'instance',9,'claimed','decide','decided','passed');
INSERT INTO "history" VALUES(70,1700000059.0,'batch',5,'open','close','closed','quiet for 20.0 s');
INSERT INTO "history" VALUES(71,1700000060.0,'instance',10,NULL,'receive','received','');
INSERT INTO "history" VALUES(72,1700000061.0,'instance',10,'received','read','reading','work-1');
INSERT INTO "history" VALUES(73,1700000062.0,'batch',6,NULL,'open','open','');
INSERT INTO "history" VALUES(74,1700000062.0,'instance',10,'reading','admit','waiting','');
INSERT INTO "history" VALUES(75,1700000062.0,'delivery',6,NULL,'queue','pending','original to plain2');
INSERT INTO "history" VALUES(76,1700000063.0,'delivery',6,'pending','claim','sending','deliver-1');
INSERT INTO "history" VALUES(77,1700000064.0,'instance',10,'waiting','claim','claimed','work-1');
INSERT INTO "history" VALUES(78,1700000065.0,'instance',10,'claimed','decide','decided','passed');
INSERT INTO "history" VALUES(79,1700000066.0,'instance',11,NULL,'receive','received','');
INSERT INTO "history" VALUES(80,1700000067.0,'instance',11,'received','read','reading','work-1');
INSERT INTO "history" VALUES(81,1700000068.0,'batch',7,NULL,'open','open','');
INSERT INTO "history" VALUES(82,1700000068.0,'instance',11,'reading','admit','waiting','');
INSERT INTO "history" VALUES(83,1700000069.0,'instance',11,'waiting','claim','claimed','work-1');
INSERT INTO "history" VALUES(84,1700000070.0,'batch',7,'open','close','closed','quiet');
INSERT INTO "history" VALUES(85,1700000071.0,'instance',12,NULL,'receive','received','');
INSERT INTO "history" VALUES(86,1700000072.0,'instance',12,'received','read','reading','work-1');
INSERT INTO "history" VALUES(87,1700000073.0,'batch',8,NULL,'open','open','');
INSERT INTO "history" VALUES(88,1700000073.0,'instance',12,'reading','admit','waiting','');
INSERT INTO "history" VALUES(89,1700000074.0,'instance',13,NULL,'receive','received','');
INSERT INTO "history" VALUES(90,1700000075.0,'instance',13,'received','read','reading','work-1');
INSERT INTO "history" VALUES(91,1700000076.0,'instance',14,NULL,'receive','received','');
CREATE TABLE instance (
  id INTEGER PRIMARY KEY, state TEXT NOT NULL, sop_class_uid TEXT NOT NULL, sop_instance_uid TEXT NOT NULL,
  transfer_syntax_uid TEXT NOT NULL, calling_ae TEXT NOT NULL, called_ae TEXT NOT NULL, association TEXT NOT NULL,
  path TEXT NOT NULL UNIQUE, size INTEGER NOT NULL, received_at REAL NOT NULL,
  digest TEXT, header TEXT, batch INTEGER REFERENCES batch, decision TEXT, note TEXT NOT NULL DEFAULT '',
  let_in INTEGER NOT NULL DEFAULT 0,
  attempts INTEGER NOT NULL DEFAULT 0, deaths INTEGER NOT NULL DEFAULT 0, next_try REAL NOT NULL DEFAULT 0,
  owner TEXT, lease_until REAL, fence INTEGER NOT NULL DEFAULT 0
) STRICT;
INSERT INTO "instance" VALUES(1,'reported','1.2.840.10008.5.1.4.1.1.1','1.2.3','1.2.840.10008.1.2.1','MODALITY','EVENRAY','a1','originals/03/3.dcm',3,1700000003.0,'d1','{"sop_class_uid":"1.2.840.10008.5.1.4.1.1.1","sop_instance_uid":"1.2.3","transfer_syntax_uid":"1.2.840.10008.1.2.1","study_instance_uid":"1.1","series_instance_uid":"1.2.1","patient_key":"p","modality":"CR","body_part":"CHEST","body_part_source":"BodyPartExamined","view":"PA","laterality":"","presentation_intent":"","manufacturer":"ACME Medical","rows":100,"columns":100,"frames":1,"samples_per_pixel":1,"has_pixels":true,"made_by_evenray":false}',1,'{"outcome":"passed","reason":"no route takes it","exam":"","route":"","bank":"","bank_digest":"","references":[],"method":"","distance_before":null,"distance_after":null,"threshold":null,"exposed_share":null,"alignment":{},"figures":[],"tried":[],"engine_version":"","settings_digest":"","weights_digest":"","source_digest":"","pixels_digest":"","notes":[],"seconds":{}}','',0,0,0,0.0,NULL,NULL,2);
INSERT INTO "instance" VALUES(2,'duplicate','1.2.840.10008.5.1.4.1.1.1','1.2.3','1.2.840.10008.1.2.1','MODALITY','EVENRAY','a1','originals/14/20.dcm',20,1700000020.0,'d1','{"sop_class_uid":"1.2.840.10008.5.1.4.1.1.1","sop_instance_uid":"1.2.3","transfer_syntax_uid":"1.2.840.10008.1.2.1","study_instance_uid":"1.1","series_instance_uid":"1.2.1","patient_key":"p","modality":"CR","body_part":"CHEST","body_part_source":"BodyPartExamined","view":"PA","laterality":"","presentation_intent":"","manufacturer":"ACME Medical","rows":100,"columns":100,"frames":1,"samples_per_pixel":1,"has_pixels":true,"made_by_evenray":false}',NULL,NULL,'same bytes as instance 1',0,0,0,0.0,NULL,NULL,6);
INSERT INTO "instance" VALUES(3,'conflict','1.2.840.10008.5.1.4.1.1.1','1.2.3','1.2.840.10008.1.2.1','MODALITY','EVENRAY','a1','originals/17/23.dcm',23,1700000023.0,'other','{"sop_class_uid":"1.2.840.10008.5.1.4.1.1.1","sop_instance_uid":"1.2.3","transfer_syntax_uid":"1.2.840.10008.1.2.1","study_instance_uid":"1.1","series_instance_uid":"1.2.1","patient_key":"p","modality":"CR","body_part":"CHEST","body_part_source":"BodyPartExamined","view":"PA","laterality":"","presentation_intent":"","manufacturer":"ACME Medical","rows":100,"columns":100,"frames":1,"samples_per_pixel":1,"has_pixels":true,"made_by_evenray":false}',NULL,NULL,'same UID, other bytes than instance 1',0,0,0,0.0,NULL,NULL,7);
INSERT INTO "instance" VALUES(4,'own','1.2.840.10008.5.1.4.1.1.1','1.2.26','1.2.840.10008.1.2.1','MODALITY','EVENRAY','a1','originals/1a/26.dcm',26,1700000026.0,'d4','{"sop_class_uid":"1.2.840.10008.5.1.4.1.1.1","sop_instance_uid":"1.2.26","transfer_syntax_uid":"1.2.840.10008.1.2.1","study_instance_uid":"1.2","series_instance_uid":"1.2.1","patient_key":"p","modality":"CR","body_part":"CHEST","body_part_source":"BodyPartExamined","view":"PA","laterality":"","presentation_intent":"","manufacturer":"ACME Medical","rows":100,"columns":100,"frames":1,"samples_per_pixel":1,"has_pixels":true,"made_by_evenray":false}',NULL,NULL,'',0,0,0,0.0,NULL,NULL,8);
INSERT INTO "instance" VALUES(5,'parked','1.2.840.10008.5.1.4.1.1.1','1.2.29','1.2.840.10008.1.2.1','MODALITY','EVENRAY','a1','originals/1d/29.dcm',29,1700000029.0,NULL,NULL,NULL,NULL,'no DICOM file',0,0,0,0.0,NULL,NULL,9);
INSERT INTO "instance" VALUES(6,'parked','1.2.840.10008.5.1.4.1.1.1','1.2.32','1.2.840.10008.1.2.1','MODALITY','EVENRAY','a1','originals/20/32.dcm',32,1700000032.0,'d6','{"sop_class_uid":"1.2.840.10008.5.1.4.1.1.1","sop_instance_uid":"1.2.32","transfer_syntax_uid":"1.2.840.10008.1.2.1","study_instance_uid":"1.2","series_instance_uid":"1.2.1","patient_key":"p","modality":"CR","body_part":"CHEST","body_part_source":"BodyPartExamined","view":"PA","laterality":"","presentation_intent":"","manufacturer":"ACME Medical","rows":100,"columns":100,"frames":1,"samples_per_pixel":1,"has_pixels":true,"made_by_evenray":false}',2,NULL,'broken',0,0,0,0.0,NULL,NULL,11);
INSERT INTO "instance" VALUES(7,'decided','1.2.840.10008.5.1.4.1.1.1','1.2.39','1.2.840.10008.1.2.1','MODALITY','EVENRAY','a1','originals/27/39.dcm',39,1700000039.0,'d7','{"sop_class_uid":"1.2.840.10008.5.1.4.1.1.1","sop_instance_uid":"1.2.39","transfer_syntax_uid":"1.2.840.10008.1.2.1","study_instance_uid":"1.3","series_instance_uid":"1.2.1","patient_key":"p","modality":"CR","body_part":"CHEST","body_part_source":"BodyPartExamined","view":"PA","laterality":"","presentation_intent":"","manufacturer":"ACME Medical","rows":100,"columns":100,"frames":1,"samples_per_pixel":1,"has_pixels":true,"made_by_evenray":false}',3,'{"outcome":"passed","reason":"no route takes it","exam":"","route":"","bank":"","bank_digest":"","references":[],"method":"","distance_before":null,"distance_after":null,"threshold":null,"exposed_share":null,"alignment":{},"figures":[],"tried":[],"engine_version":"","settings_digest":"","weights_digest":"","source_digest":"","pixels_digest":"","notes":[],"seconds":{}}','',0,0,0,0.0,NULL,NULL,13);
INSERT INTO "instance" VALUES(8,'decided','1.2.840.10008.5.1.4.1.1.1','1.2.47','1.2.840.10008.1.2.1','MODALITY','EVENRAY','a1','originals/2f/47.dcm',47,1700000047.0,'d8','{"sop_class_uid":"1.2.840.10008.5.1.4.1.1.1","sop_instance_uid":"1.2.47","transfer_syntax_uid":"1.2.840.10008.1.2.1","study_instance_uid":"1.4","series_instance_uid":"1.2.1","patient_key":"p","modality":"CR","body_part":"CHEST","body_part_source":"BodyPartExamined","view":"PA","laterality":"","presentation_intent":"","manufacturer":"ACME Medical","rows":100,"columns":100,"frames":1,"samples_per_pixel":1,"has_pixels":true,"made_by_evenray":false}',4,'{"outcome":"passed","reason":"no route takes it","exam":"","route":"","bank":"","bank_digest":"","references":[],"method":"","distance_before":null,"distance_after":null,"threshold":null,"exposed_share":null,"alignment":{},"figures":[],"tried":[],"engine_version":"","settings_digest":"","weights_digest":"","source_digest":"","pixels_digest":"","notes":[],"seconds":{}}','',0,0,0,0.0,NULL,NULL,16);
INSERT INTO "instance" VALUES(9,'decided','1.2.840.10008.5.1.4.1.1.1','1.2.54','1.2.840.10008.1.2.1','MODALITY','EVENRAY','a1','originals/36/54.dcm',54,1700000054.0,'d9','{"sop_class_uid":"1.2.840.10008.5.1.4.1.1.1","sop_instance_uid":"1.2.54","transfer_syntax_uid":"1.2.840.10008.1.2.1","study_instance_uid":"1.5","series_instance_uid":"1.2.1","patient_key":"p","modality":"CR","body_part":"CHEST","body_part_source":"BodyPartExamined","view":"PA","laterality":"","presentation_intent":"","manufacturer":"ACME Medical","rows":100,"columns":100,"frames":1,"samples_per_pixel":1,"has_pixels":true,"made_by_evenray":false}',5,'{"outcome":"passed","reason":"no route takes it","exam":"","route":"","bank":"","bank_digest":"","references":[],"method":"","distance_before":null,"distance_after":null,"threshold":null,"exposed_share":null,"alignment":{},"figures":[],"tried":[],"engine_version":"","settings_digest":"","weights_digest":"","source_digest":"","pixels_digest":"","notes":[],"seconds":{}}','',0,0,0,0.0,NULL,NULL,19);
INSERT INTO "instance" VALUES(10,'decided','1.2.840.10008.5.1.4.1.1.1','1.2.60','1.2.840.10008.1.2.1','MODALITY','EVENRAY','a1','originals/3c/60.dcm',60,1700000060.0,'d10','{"sop_class_uid":"1.2.840.10008.5.1.4.1.1.1","sop_instance_uid":"1.2.60","transfer_syntax_uid":"1.2.840.10008.1.2.1","study_instance_uid":"1.7","series_instance_uid":"1.2.1","patient_key":"p","modality":"CR","body_part":"CHEST","body_part_source":"BodyPartExamined","view":"PA","laterality":"","presentation_intent":"","manufacturer":"ACME Medical","rows":100,"columns":100,"frames":1,"samples_per_pixel":1,"has_pixels":true,"made_by_evenray":false}',6,'{"outcome":"passed","reason":"no route takes it","exam":"","route":"","bank":"","bank_digest":"","references":[],"method":"","distance_before":null,"distance_after":null,"threshold":null,"exposed_share":null,"alignment":{},"figures":[],"tried":[],"engine_version":"","settings_digest":"","weights_digest":"","source_digest":"","pixels_digest":"","notes":[],"seconds":{}}','',0,0,0,0.0,NULL,NULL,22);
INSERT INTO "instance" VALUES(11,'claimed','1.2.840.10008.5.1.4.1.1.1','1.2.66','1.2.840.10008.1.2.1','MODALITY','EVENRAY','a1','originals/42/66.dcm',66,1700000066.0,'d11','{"sop_class_uid":"1.2.840.10008.5.1.4.1.1.1","sop_instance_uid":"1.2.66","transfer_syntax_uid":"1.2.840.10008.1.2.1","study_instance_uid":"1.6","series_instance_uid":"1.2.1","patient_key":"p","modality":"CR","body_part":"CHEST","body_part_source":"BodyPartExamined","view":"PA","laterality":"","presentation_intent":"","manufacturer":"ACME Medical","rows":100,"columns":100,"frames":1,"samples_per_pixel":1,"has_pixels":true,"made_by_evenray":false}',7,NULL,'',0,0,0,0.0,'work-1',1700000129.0,24);
INSERT INTO "instance" VALUES(12,'waiting','1.2.840.10008.5.1.4.1.1.1','1.2.71','1.2.840.10008.1.2.1','MODALITY','EVENRAY','a2','originals/47/71.dcm',71,1700000071.0,'d12','{"sop_class_uid":"1.2.840.10008.5.1.4.1.1.1","sop_instance_uid":"1.2.71","transfer_syntax_uid":"1.2.840.10008.1.2.1","study_instance_uid":"1.8","series_instance_uid":"1.2.1","patient_key":"p","modality":"CR","body_part":"CHEST","body_part_source":"BodyPartExamined","view":"PA","laterality":"","presentation_intent":"","manufacturer":"ACME Medical","rows":100,"columns":100,"frames":1,"samples_per_pixel":1,"has_pixels":true,"made_by_evenray":false}',8,NULL,'',0,0,0,0.0,NULL,NULL,25);
INSERT INTO "instance" VALUES(13,'reading','1.2.840.10008.5.1.4.1.1.1','1.2.74','1.2.840.10008.1.2.1','MODALITY','EVENRAY','a2','originals/4a/74.dcm',74,1700000074.0,NULL,NULL,NULL,NULL,'',0,0,0,0.0,'work-1',1700000135.0,26);
INSERT INTO "instance" VALUES(14,'received','1.2.840.10008.5.1.4.1.1.1','1.2.76','1.2.840.10008.1.2.1','MODALITY','EVENRAY','a2','originals/4c/76.dcm',76,1700000076.0,NULL,NULL,NULL,NULL,'',0,0,0,0.0,NULL,NULL,0);
CREATE TABLE mark (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
INSERT INTO "mark" VALUES('born','1700000000.0');
INSERT INTO "mark" VALUES('down pacs','{"since": 1700000070.0, "reason": "no association"}');
CREATE TABLE object (
  id INTEGER PRIMARY KEY, kind TEXT NOT NULL, sop_class_uid TEXT NOT NULL, sop_instance_uid TEXT NOT NULL,
  path TEXT NOT NULL UNIQUE, instance INTEGER REFERENCES instance, batch INTEGER REFERENCES batch, made_at REAL NOT NULL
, state TEXT NOT NULL DEFAULT 'kept', digest TEXT) STRICT;
INSERT INTO "object" VALUES(1,'original','1.2.840.10008.5.1.4.1.1.1','1.2.3','originals/03/3.dcm',1,NULL,1700000005.0,'kept',NULL);
INSERT INTO "object" VALUES(2,'secondary_capture','1.2.840.10008.5.1.4.1.1.7','9.11','results/11/9.11.dcm',1,NULL,1700000007.0,'kept',NULL);
INSERT INTO "object" VALUES(3,'structured_report','1.2.840.10008.5.1.4.1.1.7','9.12','results/12/9.12.dcm',NULL,1,1700000010.0,'kept',NULL);
INSERT INTO "object" VALUES(4,'original','1.2.840.10008.5.1.4.1.1.1','1.2.26','originals/1a/26.dcm',4,NULL,1700000028.0,'kept',NULL);
INSERT INTO "object" VALUES(5,'original','1.2.840.10008.5.1.4.1.1.1','1.2.60','originals/3c/60.dcm',10,NULL,1700000062.0,'kept',NULL);
CREATE INDEX association_open ON association (listener) WHERE ended_at IS NULL;
CREATE UNIQUE INDEX one_open_batch ON batch (study_key) WHERE state = 'open';
CREATE INDEX batch_held ON batch (fence) WHERE owner IS NOT NULL;
CREATE INDEX instance_by_state ON instance (state, next_try);
CREATE INDEX instance_held ON instance (fence) WHERE owner IS NOT NULL;
CREATE INDEX object_by_instance ON object (instance);
CREATE INDEX object_by_uid ON object (sop_instance_uid);
CREATE INDEX delivery_by_state ON delivery (state, destination, next_try);
CREATE INDEX delivery_held ON delivery (fence) WHERE owner IS NOT NULL;
CREATE INDEX history_by_ref ON history (what, ref);
CREATE TRIGGER history_is_never_updated BEFORE UPDATE ON history
  BEGIN SELECT RAISE(ABORT, 'history is append-only'); END;
CREATE TRIGGER history_is_never_deleted BEFORE DELETE ON history
  BEGIN SELECT RAISE(ABORT, 'history is append-only'); END;
CREATE INDEX association_ended ON association (ended_at) WHERE ended_at IS NOT NULL;
CREATE INDEX batch_by_study ON batch (study_key, number);
CREATE INDEX batch_by_state ON batch (state, undecided, next_try);
CREATE INDEX batch_by_last ON batch (state, last_at);
CREATE INDEX batch_by_first ON batch (state, first_at);
CREATE INDEX instance_unread ON instance (received_at) WHERE state IN ('received', 'reading');
CREATE INDEX instance_holding ON instance (sop_instance_uid, digest) WHERE
  digest IS NOT NULL
  AND state IN ('waiting', 'claimed', 'decided', 'reported', 'parked', 'conflict', 'own', 'expired');
CREATE INDEX instance_by_batch ON instance (batch, association) WHERE batch IS NOT NULL;
CREATE INDEX instance_by_outcome ON instance (json_extract(decision, '$.outcome')) WHERE decision IS NOT NULL;
CREATE TRIGGER instance_is_awaited AFTER UPDATE OF state, batch ON instance
  WHEN (old.batch IS NOT NULL AND old.state IN ('waiting', 'claimed'))
    <> (new.batch IS NOT NULL AND new.state IN ('waiting', 'claimed')) OR old.batch <> new.batch
  BEGIN
    UPDATE batch SET undecided = undecided - 1 WHERE id = old.batch AND old.state IN ('waiting', 'claimed');
    UPDATE batch SET undecided = undecided + 1 WHERE id = new.batch AND new.state IN ('waiting', 'claimed');
  END;
CREATE INDEX object_by_batch ON object (batch) WHERE batch IS NOT NULL;
CREATE INDEX delivery_by_object ON delivery (object);
CREATE INDEX batch_settled ON batch (settled_at) WHERE settled_at IS NOT NULL AND cleared = 0;
CREATE INDEX batch_unsettled ON batch (id) WHERE state = 'reported' AND settled_at IS NULL;
COMMIT;
PRAGMA user_version=2;
